#!/usr/bin/env python3
"""Every __global__ of kernels/ must have been launched by the tests, in each of its instantiations.

    launched.py KERNELS PROGRAM LOG [LOG ...] [--files REGEX]

PROGRAM holds the library, its symbols name the instantiations. A LOG is what the executors write: MICA_SIMT_LAUNCHES
(name, tab, number) or PTXSIM_STATS (a JSON line a launch). --files: only kernels of source files that match; without it
all but those of sm_90a alone, which only ptxsim runs. Exit code 1 names what nothing launched.
"""
import argparse
import os
import re
import subprocess
import sys


def kernel_name(text):
    """the name of the kernel whose text after __global__ is given"""
    head = re.split(r"[{;]", text, maxsplit=1)[0]
    while True:
        bounds = re.search(r"__(?:launch_bounds|cluster_dims)__\s*\(", head)
        if not bounds:
            break
        at, depth = bounds.end(), 1
        while depth and at < len(head):
            depth += {"(": 1, ")": -1}.get(head[at], 0)
            at += 1
        head = head[:bounds.start()] + head[at:]
    found = re.search(r"(\w+)\s*\(", head)
    return found.group(1) if found else None


def declared(folder, wanted):
    """kernel name -> file, of the files that are wanted"""
    found, unread = {}, []
    for where, _, files in os.walk(folder):
        for file in sorted(files):
            path = os.path.join(where, file)
            if not file.endswith((".cu", ".cuh")) or not wanted(path):
                continue
            with open(path) as text:
                source = re.sub(r"/\*.*?\*/|//[^\n]*", "", text.read(), flags=re.S)
            for text in source.split("__global__")[1:]:
                name = kernel_name(text)
                if name:
                    found[name] = os.path.relpath(path, folder)
                else:
                    unread.append(f"{path}: a __global__ without a name: {text.strip().splitlines()[0]}")
    return found, unread


def bare(symbol):
    """name of a kernel in its demangled symbol, without namespace, template arguments and parameters"""
    found = re.search(r"(\w+)\s*(?:<.*>)?\(", symbol.replace("(anonymous namespace)::", ""))
    return found.group(1) if found else None


def instantiations(program, kernels):
    """demangled symbols of the kernels in a program"""
    symbols = subprocess.run(["nm", "-C", program], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^[0-9a-f]+ [tTwWuV] (.*)$", symbols, flags=re.M)
    return {s for s in found if bare(s) in kernels and not re.search(r"__device_stub__| \[clone|\{lambda", s)}


def launched(logs):
    """demangled symbols that the logs name"""
    plain, mangled = set(), set()
    for log in logs:
        with open(log) as file:
            for line in file:
                if line.startswith("{"):
                    mangled.add(re.match(r'\{"kernel":"([^"]+)"', line).group(1))
                else:
                    plain.add(line.split("\t")[0])
    if mangled:
        names = subprocess.run(["c++filt"], input="\n".join(sorted(mangled)), check=True, capture_output=True, text=True)
        plain.update(names.stdout.splitlines())
    return plain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels")
    parser.add_argument("program")
    parser.add_argument("logs", nargs="+")
    parser.add_argument("--files")
    options = parser.parse_args()
    kernels, red = declared(options.kernels, lambda path: re.search(options.files, path) if options.files else "_sm90" not in path)
    logs = [log for log in options.logs if os.path.exists(log)]
    if not logs:
        sys.exit("launched.py: none of the logs is there: run the tests that write them first: " + " ".join(options.logs))
    ran, built = launched(logs), instantiations(options.program, kernels)
    red += [f"{kernels[bare(s)]}: {s} was never launched" for s in sorted(built - ran)]
    red += [f"{file}: __global__ {name} is not in {options.program}"
            for name, file in sorted(kernels.items()) if name not in {bare(s) for s in built}]
    print(f"{len(kernels)} kernels, {len(built)} instantiations, {len(built & ran)} launched")
    for line in red:
        print("RED " + line)
    sys.exit(1 if red else 0)


if __name__ == "__main__":
    main()
