#!/usr/bin/env python3
"""Every __global__ of kernels/ must have been launched by the tests: no kernel may go unexecuted.

    launched.py KERNELS [--skip REGEX] [--rooms a,b] LOG [LOG ...]

A LOG is what the executors write: MICA_SIMT_LAUNCHES (name, tab, number) or PTXSIM_STATS (a JSON line a launch).
--skip: files left to the other executor. Exit code 1 names the kernels that nothing launched.
"""
import argparse
import os
import re
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


def declared(folder, skip):
    """kernel name -> file"""
    found, unread = {}, []
    for where, _, files in os.walk(folder):
        for file in sorted(files):
            path = os.path.join(where, file)
            if not file.endswith((".cu", ".cuh")) or (skip and re.search(skip, path)):
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


def launched(logs):
    names = set()
    for log in logs:
        with open(log) as file:
            for line in file:
                if line.startswith("{"):
                    mangled = re.match(r'\{"kernel":"_Z(?:L|N\d*_GLOBAL__N\w*?)?(\d+)(\w+)', line)
                    if mangled:
                        names.add(mangled.group(2)[:int(mangled.group(1))])
                else:
                    plain = re.search(r"(\w+)\s*(?:<.*>)?\(", line)
                    if plain:
                        names.add(plain.group(1))
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels")
    parser.add_argument("logs", nargs="+")
    parser.add_argument("--skip")
    options = parser.parse_args()
    kernels, red = declared(options.kernels, options.skip)
    logs = [log for log in options.logs if os.path.exists(log)]
    if not logs:
        sys.exit("launched.py: none of the logs is there: run the tests that write them first: " + " ".join(options.logs))
    ran = launched(logs)
    red += [f"{file}: __global__ {name} was never launched" for name, file in sorted(kernels.items()) if name not in ran]
    print(f"{len(kernels)} kernels, {sum(k in ran for k in kernels)} launched")
    for line in red:
        print("RED " + line)
    sys.exit(1 if red else 0)


if __name__ == "__main__":
    main()
