#!/usr/bin/env python3
"""What nvcc makes of each CUDA kernel against tests/simt/budget.tsv: registers, shared memory, instructions; no spills.

    budget.py --build build/ptxsim [--to FILE] [--write]
    budget.py --alone 80,90a,100 [--write]

--build reads the objects of a build (every build with nvcc does this). --alone compiles every kernels/**/*.cu by itself
with nvcc -std=c++17 -O3 -arch=sm_X -Iinclude -I. -Ikernels -Ihost, files named _sm90 for sm_90a alone, and reads those.
What a kernel takes elsewhere, sm_100, has no budget: there spills are printed, not red.
Both print compile time and size of the objects (--to writes that down when all is well). Exit code 1 when a kernel takes
more than its line allows, spills, keeps an array in local memory, lacks an instruction, or has no line; when a line has no
kernel; when a kernel has over 8 instantiations in a file.

--write takes the figures found as the new budget: do that for a new kernel, or when more is worth it and measured.
Columns: file, kernel, registers a thread on sm_80 and sm_90a (multiples of 8, as they are handed out; the most of all
instantiations), bytes of static shared memory, instructions that its PTX must have.
"""
import argparse
import ctypes
import ctypes.util
import glob
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.normpath(os.path.join(HERE, "..", ".."))
BUDGET = os.path.join(HERE, "budget.tsv")
COLUMNS, ARCHS = ("sm_80", "sm_90a"), {80: "sm_80", 90: "sm_90a", 100: "sm_100"}
PTX, CUBIN = 1, 2
RESERVED = {"sm_80": 0, "sm_90a": 1024, "sm_100": 1024}  # shared memory that the driver takes of each block
MOST_INSTANCES = 8
# instructions that a new line asks for where all of its instantiations have them
CLAIMS = re.compile(r"\b(?:(?:mma\.sync|wgmma\.mma_async)[\w.]+|ldmatrix|cp\.async\.bulk|cp\.async(?=\.c[ag])"
                    r"|(?:ld|st)\.(?:global|shared)\.v4|shfl\.sync)")
ATTRIBUTES = {0x11: "stack", 0x2F: "registers"}  # EIATTR_FRAME_SIZE, EIATTR_REGCOUNT of .nv.info
COMMAND = ["nvcc", "-std=c++17", "-O3", "-Iinclude", "-I.", "-Ikernels", "-Ihost"]


def plain(mangled):
    """the name without template and parameters, as in the sources"""
    found = re.match(r"_Z(?:L|N\d*_GLOBAL__N\w*?)?(\d+)(\w+)", mangled)
    return found.group(2)[:int(found.group(1))] if found else mangled


def read_object(path):
    """of the device code that nvcc put into an object: [(sm, kernel's mangled name, {registers, shared, stack})], and the
    PTX of each architecture {sm: text}"""
    with open(path, "rb") as file:
        raw = file.read()
    found, ptx, at = [], {}, 0
    while (at := raw.find(struct.pack("<I", 0xBA55ED50), at)) >= 0:
        size, total = struct.unpack_from("<HQ", raw, at + 6)
        entry, end = at + size, at + size + total
        while entry < end:
            kind, _, head, size, packed = struct.unpack_from("<HHIQI", raw, entry)
            (arch,), (flags, _, full) = struct.unpack_from("<I", raw, entry + 28), struct.unpack_from("<QQQ", raw, entry + 40)
            arch, code = ARCHS[arch], raw[entry + head:entry + head + size]
            if flags & 0xA000:
                code = unpack(code[:packed], full, path, flags)
            if kind == PTX:
                text = code.rstrip(b"\0").decode()
                if arch != "sm_90a" or not text or ".target sm_90a" in text:  # -arch=sm_90a adds the PTX of sm_90
                    ptx[arch] = text
            elif kind == CUBIN:
                found += [(arch, name, of) for name, of in read_cubin(code, arch).items()]
            entry += head + size
        at = end
    if not found and not ptx:
        sys.exit(f"budget.py: {path}: no device code in it")
    return found, ptx


def unpack(code, full, path, flags):
    library = ctypes.util.find_library("zstd")
    if not library or not flags & 0x8000:
        print(f"skipped: instructions of {path}: its PTX is compressed, and libzstd, which unpacks it, is not here")
        return b""
    text = ctypes.create_string_buffer(full)
    call = ctypes.CDLL(library).ZSTD_decompress
    call.restype, call.argtypes = ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    if call(text, full, code, len(code)) != full:
        sys.exit(f"budget.py: {path}: its PTX does not unpack")
    return text.raw


def read_cubin(elf, arch):
    """kernel -> registers, bytes of static shared memory, bytes of stack (what is spilled, arrays in local memory)"""
    sections, count, names = struct.unpack_from("<Q", elf, 0x28)[0], *struct.unpack_from("<HH", elf, 0x3C)
    table = [struct.unpack_from("<IIQQQQIIQQ", elf, sections + 64 * i) for i in range(count)]

    def text(strings, offset):
        at = table[strings][4] + offset
        return elf[at:elf.index(b"\0", at)].decode()

    found, symbols = {}, []
    by_name = [(text(names, s[0]), s) for s in table]
    for name, (_, kind, _, _, at, size, link, *_) in by_name:
        if kind == 2:                        # SHT_SYMTAB
            symbols = [text(link, struct.unpack_from("<I", elf, at + 24 * i)[0]) for i in range(size // 24)]
        elif name.startswith(".text."):
            found[name[6:]] = {"registers": 0, "shared": 0, "stack": 0}
    for name, (_, _, _, _, at, size, *_) in by_name:
        if name.startswith(".nv.shared.") and name[11:] in found:
            found[name[11:]]["shared"] = size - RESERVED[arch]
        end = at + size if name == ".nv.info" else at
        while at < end:                      # format, attribute, then a size and so many bytes, or 2 bytes
            form, attribute, size = struct.unpack_from("<BBH", elf, at)
            if form == 4 and attribute in ATTRIBUTES:
                symbol, value = struct.unpack_from("<II", elf, at + 4)
                if symbols[symbol] in found:
                    found[symbols[symbol]][ATTRIBUTES[attribute]] = value
            at += 4 + (size if form == 4 else 0)
    return found


def sources():
    return sorted(os.path.relpath(f, SOURCES) for f in glob.glob(os.path.join(SOURCES, "kernels/**/*.cu"), recursive=True))


def launcher():
    return ["ccache"] if subprocess.run(["which", "ccache"], capture_output=True).returncode == 0 else []


def compile_alone(job):
    file, arch, folder = job
    to = os.path.join(folder, file.replace("/", "-") + "." + arch + ".o")
    done = subprocess.run(launcher() + COMMAND + [f"-arch={arch}", "-c", file, "-o", to], capture_output=True, text=True,
                          cwd=SOURCES)
    return to, done.stderr if done.returncode else ""


def milliseconds(build):
    """how long the objects took to make, from ninja's log (its last word on each)"""
    took = {}
    with open(os.path.join(build, ".ninja_log")) as file:
        for line in file:
            part = line.split("\t")
            if len(part) == 5 and part[3].endswith(".cu.o"):
                took[part[3]] = int(part[1]) - int(part[0])
    return sum(took.values())


def read_budget():
    lines = {}
    if os.path.exists(BUDGET):
        with open(BUDGET) as file:
            for line in file.read().splitlines()[1:]:
                part = line.split("\t")
                lines[part[0], part[1]] = {"sm_80": int(part[2]), "sm_90a": int(part[3]), "shared": int(part[4]),
                                           "instructions": part[5].split(",") if part[5] else []}
    return lines


def write_budget(lines):
    with open(BUDGET, "w") as file:
        file.write("\t".join(("file", "kernel", *COLUMNS, "shared", "instructions")) + "\n")
        for (name, kernel), b in sorted(lines.items()):
            row = (name, kernel, *(b[a] for a in COLUMNS), b["shared"], ",".join(sorted(b["instructions"])))
            file.write("\t".join(str(c) for c in row) + "\n")


def check(file, found, ptx, budget, used):
    """what is wrong with a file's kernels; `used` gets their figures"""
    red, instances = [], {}
    for arch, mangled, got in found:
        kernel = plain(mangled)
        instances.setdefault((arch, kernel), []).append(mangled)
        of = used.setdefault((file, kernel), {"shared": 0})
        of[arch] = max(of.get(arch, 0), (got["registers"] + 7) // 8 * 8)
        of["shared"] = max(of["shared"], got["shared"])
        if got["stack"]:
            wrong = (f"{file}: {kernel} on {arch}: {got['stack']} bytes of stack, expected no spills and no arrays in local "
                     f"memory: look with -Xptxas -v ({mangled})")
            if arch in COLUMNS:
                red.append(wrong)
            else:
                print("no budget: " + wrong)
    red += [f"{file}: {kernel} has {len(m)} instantiations on {arch}, expected at most {MOST_INSTANCES}: split the file"
            for (arch, kernel), m in instances.items() if len(m) > MOST_INSTANCES]
    for arch, text in ptx.items():
        for part in re.split(r"\.entry\s+", text.replace("ld.global.nc.", "ld.global."))[1:]:
            kernel, has = plain(re.match(r"\w+", part).group(0)), set(CLAIMS.findall(part))
            of = used[file, kernel]
            of["instructions"] = of.get("instructions", has) & has
            red += [f"{file}: {kernel} on {arch}: no {i} in the PTX of an instantiation"
                    for i in budget.get((file, kernel), {"instructions": []})["instructions"] if i not in part]
    return red


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--build")
    which.add_argument("--alone")
    parser.add_argument("--to")
    parser.add_argument("--write", action="store_true")
    o = parser.parse_args()
    if o.write and o.alone and not {"80", "90a"} <= set(o.alone.split(",")):
        parser.error("--write needs figures of sm_80 and sm_90a: --alone 80,90a")
    red, used, kernels, size = [], {}, 0, 0      # used: (file, kernel) -> {sm: registers, "shared": bytes}
    budget = read_budget()
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        if o.build:
            objects = [(file, os.path.join(o.build, "cuda", file + ".o"), "") for file in sources()]
        else:
            archs = ["sm_" + a for a in o.alone.split(",")]
            jobs = [(file, a, folder) for file in sources() for a in archs if a == "sm_90a" or "_sm90" not in file]
            with ThreadPoolExecutor(2) as pool:
                objects = [(job[0], *done) for job, done in zip(jobs, pool.map(compile_alone, jobs))]
        took = milliseconds(o.build) / 1000 if o.build else time.time() - started
        for file, path, error in objects:
            if error:
                red.append(f"{file} does not compile alone ({path[-10:]}): {error[-2000:]}")
                continue
            found, ptx = read_object(path)
            red += check(file, found, ptx, budget, used)
            kernels += len(found)
            size += os.path.getsize(path)
    if o.write:
        # what is asked of a kernel's PTX stays until somebody takes it out
        write_budget({key: {**{a: 0 for a in COLUMNS}, **of, "instructions": budget.get(key, of)["instructions"]}
                      for key, of in used.items()})
        budget = read_budget()
    for (file, kernel), of in sorted(used.items()):
        line = budget.get((file, kernel))
        if not line:
            red.append(f"{file}: {kernel} has no line in tests/simt/budget.tsv; it takes {of}: if that is well, add --write")
            continue
        red += [f"{file}: {kernel}: {what if what == 'shared' else 'registers on ' + what} {n}, expected at most {line[what]}"
                for what, n in of.items() if what in COLUMNS + ("shared",) and n > line[what]]
    red += [f"tests/simt/budget.tsv: {file} has no kernel {kernel}: add --write" for file, kernel in budget
            if (file, kernel) not in used and (o.build or "sm_90a" in archs or "_sm90" not in file)]
    said = (f"{kernels} kernels from {len(sources())} files: {took:.0f} s of nvcc (less where the compiler's cache had them), "
            f"{size / 2 ** 20:.1f} MiB of objects")
    print(said)
    if o.to and not red:
        with open(o.to, "w") as file:
            file.write(said + "\n")
    for line in dict.fromkeys(red):
        print("RED " + line)
    sys.exit(1 if red else 0)


if __name__ == "__main__":
    main()
