#!/usr/bin/env python3
"""Writes docs/cuda_kernels.md: kernel x architecture x shape, by ptxsim's counters and ptxas's figures. Needs build/ptxsim.

    cuda_table.py [--ops a,b] [--arch 80,90] [--doc docs/cuda_kernels.md]

Each bench case of an operation runs once a face (check_ops --brief: one task, rows cut to what an emulator does in a
moment); of each kernel the largest launch counts. Exit code 1 when a kernel asks for over 1.3 times the sectors or 1.2
times the shared-memory wavefronts that it needs and WHY has no sentence about it.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

SOURCES = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FACES = ("forward", "backward", "jvp", "backward_jvp")
GPU = {"80": "A100", "90": "H100"}
SECTORS, WAVEFRONTS = 1.3, 1.2
WHY = {}  # kernel: a sentence on why it asks for more than it needs


def check_ops(arguments, environment=None):
    return subprocess.run([os.path.join(SOURCES, "build/ptxsim/bin/check_ops")] + arguments, capture_output=True, text=True,
                          env={**os.environ, **(environment or {})})


def plain(mangled):
    """the name without template and parameters, as in the sources"""
    found = re.match(r"_Z(?:L|N\d*_GLOBAL__N\w*?)?(\d+)(\w+)", mangled)
    return found.group(2)[:int(found.group(1))] if found else mangled


def compiled(room, arch, folder):
    """mangled kernel -> (registers, static shared bytes), from ptxas"""
    found = {}
    where = os.path.join(SOURCES, "kernels", room)
    for file in sorted(os.listdir(where)):
        if not file.endswith(".cu") or ("_sm90" in file and arch != "90"):
            continue
        done = subprocess.run(["nvcc", "-std=c++17", "-O3", f"-arch=sm_{arch}{'a' if arch == '90' else ''}", "-DMICA_HAVE_CUDA",
                               "-Iinclude", "-I.", "-Ikernels", "-Ihost", "-Xptxas", "-v", "-cubin", "-o",
                               os.path.join(folder, "x.cubin"), os.path.join(where, file)],
                              capture_output=True, text=True, cwd=SOURCES)
        if done.returncode:
            sys.exit(f"cuda_table.py: {file}: {done.stderr[-400:]}")
        name = None
        for line in done.stderr.splitlines():
            entry = re.search(r"Compiling entry function '(\w+)'", line)
            name = entry.group(1) if entry else name
            used = re.search(r"Used (\d+) registers", line)
            if used and name:
                smem = re.search(r"(\d+) bytes smem", line)
                found[name] = (int(used.group(1)), int(smem.group(1)) if smem else 0)
    return found


def occupancy(arch, threads, registers, shared):
    """share of a multiprocessor's warps (CUDA occupancy rules: registers by 256 a warp, 8 KB of L1 kept)"""
    warps = (threads + 31) // 32
    by = [64 // warps, 32]
    if registers:
        by.append(65536 // (((registers * 32 + 255) // 256 * 256) * warps))
    if shared:
        by.append((164 if arch == "80" else 228) * 1024 // (shared + 1024))
    return min(by) * warps / 64


def rows_of(op, room, case, shape, arch, registers, folder):
    out = []
    for face in FACES:
        stats = os.path.join(folder, "stats")
        if os.path.exists(stats):
            os.remove(stats)
        done = check_ops(["--backend", "cuda", "--brief", "--op", op, "--case", str(case), "--face", face],
                         {"PTXSIM_STATS": stats, "PTXSIM_ARCH": arch, "PTXSIM_GPU": GPU[arch], "PTXSIM_RACE": "0"})
        if done.returncode or not os.path.exists(stats):
            sys.exit(f"cuda_table.py: {op} {face}: {done.stdout[-300:]}{done.stderr[-300:]}")
        largest = {}
        with open(stats) as file:
            for line in file:
                s = json.loads(line)
                if s["thread_instructions"] > largest.get(s["kernel"], s)["thread_instructions"] or s["kernel"] not in largest:
                    largest[s["kernel"]] = s
        for s in largest.values():
            regs, smem = registers.get(s["kernel"], (0, 0))
            smem = max(smem, s["shared_bytes"])
            sectors = sum(s[k]["sectors"] for k in ("global_load", "global_store"))
            ideal = sum(s[k]["ideal_sectors"] for k in ("global_load", "global_store"))
            waves = sum(s[k]["wavefronts"] for k in ("shared_load", "shared_store"))
            best = sum(s[k]["ideal"] for k in ("shared_load", "shared_store"))
            threads = s["block"][0] * s["block"][1] * s["block"][2]
            tensor = sum(s["tensor_flops"].values())
            fp = sum(n for k, n in s["thread_instructions_by_class"].items() if k.startswith("fp"))
            out.append({"kernel": plain(s["kernel"]), "op": op, "face": face, "arch": arch, "shape": shape,
                        "launch": "x".join(str(n) for n in s["grid"] if n > 1) or "1", "threads": threads, "regs": regs, "smem": smem,
                        "occupancy": occupancy(arch, threads, regs, smem), "sectors": sectors / ideal if ideal else 0,
                        "waves": waves / best if best else 0, "fp": fp, "tensor": tensor, "us": s["model"]["bound_us"],
                        "limiter": s["model"]["limiter"], "gpu": s["model"]["gpu"]})
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ops")
    parser.add_argument("--arch", default="80,90")
    parser.add_argument("--doc", default=os.path.join(SOURCES, "docs", "cuda_kernels.md"))
    options = parser.parse_args()
    with open(os.path.join(SOURCES, "kernels", "ops.def")) as file:
        rooms = dict(re.findall(r"^MICA_OP\((\w+), *(\w+)\)", file.read(), re.M))
    rows, seen = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for op in options.ops.split(",") if options.ops else rooms:
            listed = check_ops(["--list", "--op", op]).stdout
            if "kernel  cuda f32" not in listed:
                continue
            cases = re.findall(r"case (\d+)  (.*?)  \[bench\]", listed)[:1]
            for arch in options.arch.split(","):
                for room in (rooms[op], "common"):
                    if (room, arch) not in seen:
                        seen[room, arch] = compiled(room, arch, folder)
                for number, shape in cases:
                    rows += rows_of(op, rooms[op], int(number), shape, arch, seen[rooms[op], arch], folder)
            print(op, flush=True)
    red = []
    out = ["# CUDA kernels, as counted", "",
           "Generated by `tests/simt/cuda_table.py`: ptxsim runs the PTX of each operation's first bench case, one task of it, with",
           "rows cut to what an emulator does in a moment. Registers and shared memory are ptxas's. Sectors are 32-byte sectors of",
           "global memory that warps ask for, over those that hold what they use; wavefronts are passes of shared memory over the",
           "least that would do. **The bound is a model of PTX counts on the named GPU, not a measurement**: no cache, no latency.", "",
           "| kernel | operation, face | sm | shape | blocks x threads | registers | shared bytes | occupancy | sectors | wavefronts |"
           " fp instructions | tensor flop | modelled bound |", "|" + " --- |" * 13]
    for r in rows:
        flags = (r["sectors"] > SECTORS, r["waves"] > WAVEFRONTS)
        if any(flags) and r["kernel"] not in WHY:
            red.append(f"{r['kernel']} ({r['op']} {r['face']} sm_{r['arch']}): sectors {r['sectors']:.2f}, wavefronts {r['waves']:.2f}")
        out.append(f"| `{r['kernel']}` | {r['op']} {r['face']} | {r['arch']} | {r['shape']} | {r['launch']} x {r['threads']} | {r['regs'] or '-'} | "
                   f"{r['smem']} | {r['occupancy']:.0%} | {r['sectors']:.2f}{' (!)' if flags[0] else ''} | "
                   f"{r['waves']:.2f}{' (!)' if flags[1] else ''} | {r['fp']:.3g} | {r['tensor']:.3g} | {r['us']:.3g} us, {r['limiter']} ({r['gpu']}) |")
    used = sorted({r["kernel"] for r in rows if r["sectors"] > SECTORS or r["waves"] > WAVEFRONTS} & set(WHY))
    out += ["", "(!) asks for more than it needs:", ""] + [f"- `{k}`: {WHY[k]}" for k in used] + [f"- {line}" for line in red]
    with open(options.doc, "w") as file:
        file.write("\n".join(out) + "\n")
    for line in red:
        print("RED " + line)
    sys.exit(1 if red else 0)


if __name__ == "__main__":
    main()
