#!/usr/bin/env python3
"""what a task costs as tasks grow in number: microseconds a task of a training step, sizes in turn.

    python3 bench/tasks.py docs/recipes/maml_sinusoid.yaml grain=1000 [KEY=VALUE ...]

every size is a process of its own; in each round every size runs in turn with the smallest, about as many tasks each, every
other time the other way round. red (exit code 1) where the median of these pairs' ratios is more than 10 % off 1.
"""
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIZES, ROUNDS, MOST = (1_000, 3_000, 10_000, 30_000, 100_000), 25, 0.1


def seconds(process, steps):
    try:
        process.stdin.write(f"steps {steps}\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass
    line = process.stdout.readline()
    if not line:
        raise SystemExit("tasks.py: bench_train ended; what it said stands above")
    return json.loads(line)["seconds"]


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    processes, cost, ratios = {}, {tasks: [] for tasks in SIZES}, {tasks: [1] for tasks in SIZES[:1]}
    for tasks in SIZES:
        command = [os.path.join(ROOT, "build/release/bin/bench_train"), sys.argv[1], "steps=1000000", "checkpoint_every=0",
                   f"batch={tasks}"] + sys.argv[2:]
        processes[tasks] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes[tasks].stdout.readline()
        seconds(processes[tasks], 1)
    for turn in range(ROUNDS):
        for size in SIZES[1:]:
            for tasks in (size, SIZES[0]) if turn % 2 else (SIZES[0], size):
                took = seconds(processes[tasks], SIZES[-1] // tasks)
                cost[tasks].append(1e6 * sum(took) / len(took) / tasks)
            ratios.setdefault(size, []).append(cost[size][-1] / cost[SIZES[0]][-1])
    red = 0
    print(f"{'tasks':>8} {'us a task':>10} {'least':>7} {'most':>7} {'of the smallest':>16}")
    for tasks in SIZES:
        ratio = statistics.median(ratios[tasks])
        red |= abs(ratio - 1) > MOST
        print(f"{tasks:8d} {statistics.median(cost[tasks]):10.2f} {min(cost[tasks]):7.2f} {max(cost[tasks]):7.2f} {ratio:16.3f}")
    return red


if __name__ == "__main__":
    sys.exit(main())
