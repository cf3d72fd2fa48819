#!/usr/bin/env python3
"""Plants the faults of faults.cu under the executors that are given and demands that each is found and its twin is not.

    faults.py --run simt=PROGRAM [--run ptxsim=PROGRAM ...] [--doc FILE]

Executors: simt, simt-asan, ptxsim, gpu. --doc writes the table fault x executor x found by; executors that are not run
keep what it says of them. Exit code 1 when a fault that an executor must find is not found, or a twin is blamed; 77 for gpu
where there is none.
"""
import argparse
import os
import re
import subprocess
import sys

FAULTS = [  # name, what is wrong
    ("barrier_tree", "no barrier between the levels of a sum in shared memory"),
    ("barrier_reuse", "no barrier before shared memory is written again"),
    ("barrier_copy", "no barrier before the next `cp.async` into a half that others still read"),
    ("copy_wait", "a `cp.async` is read before it was waited for"),
    ("global_bounds", "one element behind an allocation is written"),
    ("static_bounds", "one element behind a static shared array is written"),
    ("dynamic_bounds", "one element behind the launch's dynamic shared memory is written"),
    ("fragment", "the registers of an `mma` fragment the wrong way round"),
    ("event_wait", "a stream does not wait for another's event"),
    ("host_access", "the host reads device memory"),
    ("launch_error", "a launch is refused and nobody looks at its status"),
    ("ragged_mask", "a full mask where only lanes of the ragged tail shuffle"),
    ("divergent_barrier", "a barrier that half of the block takes"),
    ("unwritten", "shared memory is read that nobody has written"),
    ("alignment", "four floats at an address that is not a multiple of 16"),
    ("block_race", "blocks add to one place without atomics"),
    ("tile_wait", "`wgmma` multiplies a tile before its mbarrier was waited for"),
    ("tile_release", "a tile's place is given back before the products that read it are done"),
    ("tile_descriptor", "eight rows are 512 bytes in a `wgmma` descriptor"),
    ("tile_tail", "TMA copies rows beyond a task's end"),
    ("tile_hold", "sums of `wgmma` are read before they were waited for"),
]
# those of sm_90a are in a program of their own beside the other, PROGRAM_sm90, where nvcc has built it
SM90 = "tile_"
# device memory closed to the host by the page table, for processors without protection keys
PAGES = ("page table", {"MICA_SIMT_PROTECT": "2"})
# as tests/run runs them, checks on: (what it is called, environment)
CHECKED = {
    "simt": [("", {}), ("lazy streams", {"MICA_SIMT_LAZY_STREAMS": "1"}), PAGES],
    "simt-asan": [("", {}), ("lazy streams", {"MICA_SIMT_LAZY_STREAMS": "1"}), PAGES],
    "ptxsim": [("", {}), ("uninitialised", {"PTXSIM_UNINIT": "1"}), ("lazy streams", {"PTXSIM_LAZY_STREAMS": "1"})],
    "gpu": [("", {})],
}
# results alone: checks off, every schedule with copies that land at once or late
RESULTS = {
    "simt": [(f"{s} {a}", {"MICA_SIMT_RACE": "0", "MICA_SIMT_PROTECT": "0", "MICA_SIMT_SCHED": s, "MICA_SIMT_ASYNC": a})
             for s in ("inorder", "reversed", "random:2") for a in ("eager", "lazy")],
    "ptxsim": [(f"{n} {a}", {"PTXSIM_RACE": "0", "PTXSIM_SCHED": s, "PTXSIM_SEED": "2", "PTXSIM_ASYNC": a})
               for n, s in (("inorder", "0"), ("reversed", "reverse"), ("random:2", "random")) for a in ("eager", "lazy")],
}
# what an executor cannot see, and why
UNSEEN = {
    **{(e, f"tile_{n}"): "sm_90a is left to ptxsim" for e in ("simt", "simt-asan")
       for n in ("wait", "release", "descriptor", "tail", "hold")},
    ("simt", "static_bounds"): "no gap between variables: the address sanitizer's build sees it",
    ("simt", "alignment"): "x86 takes the access: the undefined-behaviour sanitizer sees it",
    ("simt-asan", "copy_wait"): "no race detector in this build, and no schedule is asked for",
    ("simt-asan", "block_race"): "no race detector in this build; blocks run one at a time",
    ("ptxsim", "host_access"): "device memory is open to the host",
    ("ptxsim", "divergent_barrier"): "barriers match by number, and warps that ended count as arrived, as on a GPU",
}
HOW = [
    (r"AddressSanitizer: (\S+)", "address sanitizer: {0}"), (r"runtime error: load of misaligned", "undefined-behaviour sanitizer"),
    (r"runtime error: ", "undefined-behaviour sanitizer"), (r"still writing", "race detector"), (r"\brace\b|races? with|data race", "race detector"),
    (r"out of bounds|no memory of|outside of|not in any|beyond", "bounds"), (r"not written|never written|uninitiali", "unwritten memory"),
    (r"host accessed", "memory protection"), (r"takes from lane|not all lanes|mask|diverge|deadlock|exited", "divergence check"),
    (r"used before wgmma.wait_group", "check of sums under way"), (r"misaligned|aligned", "alignment check"), (r"wrong result", "wrong result"),
]


def run(program, arguments, environment):
    done = subprocess.run([program] + arguments, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0", **environment})
    text = done.stdout + done.stderr
    if done.returncode == 0:
        return None, text
    for pattern, how in HOW:
        found = re.search(pattern, text)
        if found:
            return how.format(*found.groups()), text
    return f"exit {done.returncode}: " + (text.strip().splitlines() or [""])[-1][:80], text


def look(executor, plain, verbose):
    """rows of (fault, found by, in results), and the complaints"""
    rows, red = {}, []
    for name, _ in FAULTS:
        program = plain + "_sm90" if name.startswith(SM90) else plain
        if executor.startswith("simt") and name.startswith(SM90):
            rows[name] = (None, [])
            continue
        for mode, environment in CHECKED[executor] + RESULTS.get(executor, []):
            how, text = run(program, [name], environment)
            if how:
                red.append(f"{executor} {mode}: {name} is correct, but: {text.strip()}")
        found, note = None, ""
        for mode, environment in CHECKED[executor]:
            how, text = run(program, [name, "fault"], environment)
            if verbose:
                print(f"{executor} {mode or 'default'} {name}: {text.strip()}")
            if how:
                found, note = how, mode
                break
        seen = [mode for mode, environment in RESULTS.get(executor, [])
                if run(program, [name, "fault"], environment)[0] == "wrong result"]
        rows[name] = (found + (f" ({note})" if note else "") if found else None, seen)
        reason = UNSEEN.get((executor, name))
        if not found and not reason:
            red.append(f"{executor}: {name} was not found")
        if found and reason:
            red.append(f"{executor}: {name} was found by {found}, but the table of what it cannot see has it")
    return rows, red


def read_cells(doc):
    """(column, fault) -> text of a table that was written before: executors that are not run now keep their cells"""
    cells, head = {}, []
    if os.path.exists(doc):
        with open(doc) as file:
            for line in file:
                part = [c.strip() for c in line.strip("|\n ").split(" | ")]
                if part[0] == "fault":
                    head = part
                elif head and part[0].startswith("`"):
                    cells.update({(column, part[0].split("`")[1]): text for column, text in zip(head, part)})
    return cells


def table(results, old):
    out = ["# Planted faults", "",
           "Generated by `tests/simt/faults.py` from `tests/simt/faults.cu` and `faults_sm90.cu`. Each fault stands beside a",
           "correct twin, which every executor must let pass in every mode. *By results alone* are the checks switched off: the",
           "schedules and arrival of asynchronous copies under which the result is wrong.", ""]
    names = [e for e in ("simt", "simt-asan", "ptxsim", "gpu") if e in results or any(column == e for column, _ in old)]
    alone = [f"{e}, by results alone" for e in names if e in RESULTS]
    out.append("| fault | " + " | ".join(names + alone) + " |")
    out.append("|" + " --- |" * (1 + len(names) + len(alone)))

    def by_checks(e, name):
        if (e, name) in UNSEEN and (e not in results or not results[e][name][0]):
            return "not seen: " + UNSEEN[e, name]
        return (results[e][name][0] or "not found") if e in results else old.get((e, name), "not run")

    def by_results(column, name):
        e = column.split(",")[0]
        if e == "simt" and name.startswith(SM90):
            return "-"
        if e not in results:
            return old.get((column, name), "not run")
        seen = results[e][name][1]
        return "always" if len(seen) == len(RESULTS[e]) else ", ".join(seen) or "never"

    for name, what in FAULTS:
        cells = [f"`{name}`: {what}"] + [by_checks(e, name) for e in names] + [by_results(column, name) for column in alone]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="append", required=True, metavar="EXECUTOR=PROGRAM")
    parser.add_argument("--doc")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    results, red = {}, []
    for pair in options.run:
        executor, program = pair.split("=", 1)
        if executor == "gpu" and run(program, ["launch_error"], {})[1].find("no CUDA-capable device") >= 0:
            print("skipped: no GPU on this machine")
            sys.exit(77)
        results[executor], more = look(executor, program, options.verbose)
        red += more
        found = sum(1 for r in results[executor].values() if r[0])
        print(f"{executor}: {found} of {len(FAULTS)} faults found, {sum(1 for k in UNSEEN if k[0] == executor)} that it cannot see")
    if options.doc:
        text = table(results, read_cells(options.doc))
        with open(options.doc, "w") as file:
            file.write(text)
    for line in red:
        print("RED " + line)
    sys.exit(1 if red else 0)


if __name__ == "__main__":
    main()
