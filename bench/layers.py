#!/usr/bin/env python3
"""where each millisecond of a training step goes: milliseconds by layer and face, and by operation.

    python3 bench/layers.py docs/recipes/linreg_w5.yaml [KEY=VALUE ...]

milliseconds are those of all threads together, divided by the threads: the columns add up to the step, less what waits
at barriers.
"""
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STEPS = 5


def ask(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    overrides = ["optimizer.clip=0", "checkpoint_every=0", "steps=100000"] + sys.argv[2:]
    threads = next((int(v.split("=")[1]) for v in overrides if v.startswith("threads=")), os.cpu_count())
    command = [os.path.join(ROOT, "build/release/bin/bench_train"), sys.argv[1], f"threads={threads}"] + overrides
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    ask(process, "steps 2")
    ask(process, "profile")
    seconds = sorted(ask(process, f"steps {STEPS}")["seconds"])
    rows, ops = {}, {}
    for e in ask(process, "profile"):
        ms = e["ms"] / STEPS / threads
        layer = re.sub(r"\.\d+\.", ".*.", e["path"])  # the same layer of all blocks together
        row = rows.setdefault((layer, e["op"]), {})
        row[e["face"]] = row.get(e["face"], 0) + ms
        ops[e["op"]] = ops.get(e["op"], 0) + ms
    process.stdin.write("quit\n")
    process.stdin.flush()
    total = sum(ops.values())
    print(f"{sys.argv[1]}, {threads} thread(s): step {1e3 * seconds[len(seconds) // 2]:.1f} ms (median of {STEPS}), in operations {total:.1f} ms\n")
    print(f"{'layer':24} {'operation':14} {'forward':>9} {'backward':>9} {'% of all':>9}")
    for (layer, op), row in rows.items():
        both = sum(row.values())
        print(f"{layer:24} {op:14} {row.get('forward', 0):9.2f} {row.get('backward', 0):9.2f} {100 * both / total:9.1f}")
    print("\n" + ", ".join(f"{op} {100 * ms / total:.1f} %" for op, ms in sorted(ops.items(), key=lambda item: -item[1])))


if __name__ == "__main__":
    main()
