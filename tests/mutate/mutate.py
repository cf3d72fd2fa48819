#!/usr/bin/env python3
"""Plants the faults of table.py, one at a time, in a copy of the kernels and demands that check_ops, or a unit test, turns red.

    mutate.py --build DIR --room layernorm [--room ...]   rooms or operations; --all for all
Needs a build folder (Ninja) with check_ops, and the unit tests named, built from these sources; faults of CUDA sources are
planted where it compiles them, for an emulator (build/simt), those of sm_90a in build/ptxsim, and skipped elsewhere. Nothing in it, or in the sources, is
changed.
Exit code 1 when a fault survives, or when check_ops is red without any.
"""
import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from table import EACH_ROOM, FAULTS  # noqa: E402

SOURCES = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def stop(message):
    sys.exit("mutate.py: " + message)


class Build:
    """how the sources of check_ops, or of a unit test, are compiled and linked, from Ninja itself"""

    def __init__(self, folder, target="check_ops"):
        self.folder, self.target = os.path.abspath(folder), target
        done = subprocess.run(["ninja", "-C", self.folder, "-t", "commands", target], capture_output=True, text=True)
        if done.returncode:
            stop(f"{folder}: {done.stderr.strip() or done.stdout.strip()}")
        self.compile, self.link, self.graph = {}, None, {}
        with open("/proc/cpuinfo") as file:
            self.flags = set(next((w for w in file if w.startswith("flags")), "").split())
        for line in done.stdout.splitlines():
            words = compiling(shlex.split(line))
            if "-c" in words and words[words.index("-c") + 1].endswith((".c", ".cu")):
                self.compile.setdefault(os.path.normpath(words[words.index("-c") + 1]), []).append(words)
            elif f"bin/{target}" in words:
                self.link = [w for w in words if w not in (":", "&&")]
        if not self.link:
            stop(f"{folder}: no {target} there; configure with -DMICA_TESTS=ON and Ninja, then build it")
        self.program = os.path.join(self.folder, "bin", target)

    def kind(self, name):
        """which kernels a fault in kernels/`name` is in: cpu, cuda, sm90; None for CUDA's that this build does not have"""
        if not name.endswith((".cu", ".cuh")) or not os.path.exists(os.path.join(SOURCES, "kernels", name)):
            return "cpu"
        affected = self.affected(name)
        return None if not affected else "sm90" if all("_sm90" in s for s in affected) else "cuda"

    def long_cases(self, op):
        """numbers of the cases that are long enough for the kernels of sm_90a, the shortest ones first, which stand last"""
        done = subprocess.run([self.program, "--list", "--op", op], capture_output=True, text=True)
        return re.findall(r"case (\d+) .*\[half\]", done.stdout)[::-1]

    def affected(self, name):
        """sources to compile again after a change in kernels/`name`: the file itself, or all that include it"""
        kernels = os.path.join(SOURCES, "kernels")
        if os.path.join(kernels, name) in self.compile:
            return [os.path.join(kernels, name)]
        changed, grown = {name}, True
        while grown:
            grown = False
            for file, includes in self.includes(kernels).items():
                if file not in changed and includes & changed:
                    changed.add(file)
                    grown = True
        return [s for s in (os.path.join(kernels, f) for f in sorted(changed)) if s in self.compile]

    def includes(self, kernels):
        """kernels/ file -> kernels/ files that it includes"""
        if not self.graph:
            for folder, _, files in os.walk(kernels):
                for file in files:
                    path = os.path.join(folder, file)
                    with open(path) as text:
                        found = re.findall(r'^\s*#\s*include\s+"([^"]+)"', text.read(), re.M)
                    beside = os.path.relpath(folder, kernels)
                    self.graph[os.path.relpath(path, kernels)] = {
                        os.path.normpath(os.path.join(base, i)) for i in found for base in (beside, "")}
        return self.graph

    def commands(self, source):
        """one command of a source: kernels are compiled once an instruction set, the best one here is enough"""
        sets = {"avx512": "MICAK_ISA=avx512", "avx2": "MICAK_ISA=avx2"}
        for flag, define in sets.items():
            if (flag if flag == "avx2" else "avx512dq") in self.flags:
                best = [c for c in self.compile[source] if any(define in w for w in c)]
                if best:
                    return best
        return self.compile[source][:1]

    def planted(self, scratch, name, runner):
        """the program with the copy's version of kernels/`name`: (program, None) or (None, why it does not compile)"""
        replaced, jobs = {}, []
        for source in self.affected(name):
            copy = os.path.join(scratch, os.path.relpath(source, SOURCES))
            for words in self.commands(source):
                words = list(words)
                out = os.path.relpath(os.path.join(self.folder, words[words.index("-o") + 1]), self.folder)
                target = os.path.join(scratch, "objects", out)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                replaced[out] = target
                words[words.index("-o") + 1] = target
                words[words.index("-c") + 1] = copy
                words = list(drop_depfile(words))
                first = [f"-I{scratch}/kernels", f"-I{scratch}"]
                words[words.index("-c"):words.index("-c")] = ["-w"]
                at = next((i for i, w in enumerate(words) if w.startswith("-I")), 1)
                words[at:at] = first
                jobs.append(words)
        for words in jobs:
            done = runner(words)
            if done.returncode:
                return None, first_error(done)
        program = os.path.join(scratch, self.target)
        words = [program if w == f"bin/{self.target}" else replaced.get(w, w) for w in self.link]
        done = runner(words)
        return (None, first_error(done)) if done.returncode else (program, None)


def compiling(words):
    """of commands in a row the one that compiles"""
    parts = [[]]
    for w in words:
        parts[-1].append(w)
        if w == "&&":
            parts.append([])
    found = next((p for p in parts if "-c" in p), None)
    return [w for w in found if w != "&&"] if found else words


def first_error(done):
    lines = [w for w in done.stderr.splitlines() if "error" in w or "undefined" in w]
    return "does not compile: " + (lines[0].strip() if lines else done.stderr.strip()[:200])


def drop_depfile(words):
    skip = 0
    for w in words:
        if skip:
            skip -= 1
        elif w in ("-MF", "-MT"):
            skip = 1
        elif w != "-MD":
            yield w


def plant(text, old, new, which):
    at = -1
    for _ in range(which + 1):
        at = text.find(old, at + 1)
        if at < 0:
            return None
    return text[:at] + new + text[at + len(old):]


def rooms_by_op():
    """operation -> room, from the one list"""
    room_of = {}
    with open(os.path.join(SOURCES, "kernels", "ops.def")) as file:
        for line in file:
            if line.startswith("MICA_OP("):
                op, room = (w.strip() for w in line[len("MICA_OP("):line.index(")")].split(","))
                room_of[op] = room
    return room_of


def groups_of(ops):
    """operations, or a unit test, that must turn red together; EACH_ROOM: the first one of every room by itself"""
    if ops != EACH_ROOM:
        return [ops]
    first = {}
    for op, room in rooms_by_op().items():
        first.setdefault(room, op)
    return list(first.values())


def rooms_of(wanted):
    """rooms by their own name or that of an operation in them"""
    room_of, rooms = rooms_by_op(), []
    for name in wanted:
        room = name if name in FAULTS else room_of.get(name)
        if room not in FAULTS:
            stop(f"no faults for '{name}'; rooms are {' '.join(FAULTS)}")
        if room not in rooms:
            rooms.append(room)
    return rooms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--room", action="append", default=[])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--file", default="", metavar="TEXT", help="only faults of files whose name has this: .cu, _ref")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.all and not options.room:
        parser.error("name a --room, or --all")
    builds = {}
    golden = os.path.join(SOURCES, "tests", "golden")

    def runner(words):
        return subprocess.run(words, cwd=options.build, capture_output=True, text=True)

    def ways_of(ops, kind):
        """a unit test as it is; emulated kernels first with the fewest layouts, those of sm_90a in the cases that are theirs"""
        if ops.startswith("test_"):
            return [[]]
        ways = {"cpu": [["--quick"]], "cuda": [["--backend", "cuda", "--brief"], ["--backend", "cuda", "--quick"]]}.get(kind)
        if kind == "sm90":
            ways = [["--backend", "cuda", "--brief", "--slow", "--case", case, "--face", face]
                    for case in build.long_cases(ops) for face in ("forward", "backward")] or stop(f"{ops} has no long cases")
        return ways

    def check(program, ops, kind):
        """how it is red in the first way that is, in which the program without a fault must not be"""
        for way in ways_of(ops, kind):
            how = run(program, ops, way)
            if how:
                sound(ops, way)
                return how
        return ""

    def sound(ops, way):
        key = (ops, *way)
        if key not in clean:
            clean[key] = run(build.program, ops, way)
            if clean[key]:
                print(f"RED WITHOUT A FAULT {ops} {' '.join(way)}: {clean[key]}", file=sys.stderr)

    def run(program, ops, way):
        unit = ops.startswith("test_")
        command = [program] if unit else [program, "--op", ops, "--stop", "--golden", golden] + way
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
        except subprocess.TimeoutExpired:
            return "hangs"
        if done.returncode == 0:
            return ""
        lines = done.stdout.splitlines() + done.stderr.splitlines()
        red = [line for line in lines if line.startswith("ERROR" if unit else "  RED")]
        return red[0].strip() if red else f"exit code {done.returncode}"

    results, bad, skipped, clean = [], 0, 0, {}
    for room in rooms_of(options.room) if not options.all else FAULTS:
        for fault in FAULTS[room]:
            name, ops, old, new = fault[:4]
            which = fault[4] if len(fault) > 4 else 0
            if options.file not in name:
                continue
            target = ops if ops.startswith("test_") else "check_ops"
            build = builds[target] = builds.get(target) or Build(options.build, target)
            kind = build.kind(name)
            if not kind:
                skipped += 1
                continue
            start = time.time()
            groups = groups_of(ops)
            with tempfile.TemporaryDirectory(prefix="mica-mutate-") as scratch:
                shutil.copytree(os.path.join(SOURCES, "kernels"), os.path.join(scratch, "kernels"))
                path = os.path.join(scratch, "kernels", name)
                with open(path) as file:
                    text = plant(file.read(), old, new, which)
                if text is None:
                    verdict, why = "STALE", "the text is not there any more"
                else:
                    with open(path, "w") as file:
                        file.write(text)
                    program, why = build.planted(scratch, name, runner)
                    red = {group: check(program, group, kind) for group in groups} if program else {}
                    green = [group for group in groups if program and not red[group]]
                    verdict = "STALE" if not program else "SURVIVED" if green else "caught"
                    if program:
                        why = f"still green: {', '.join(green)}" if green else red[groups[0]]
            bad += verdict != "caught"
            results.append({"room": room, "file": name, "ops": ops, "old": old, "new": new, "verdict": verdict, "by": why})
            if not options.json:
                print(f"{verdict:9} {name:32} {old.strip()[:60]!r}  ({time.time() - start:.1f} s)\n          {why[:200]}", flush=True)
    bad += sum(bool(how) for how in clean.values())
    caught = sum(r["verdict"] == "caught" for r in results)
    if options.json:
        print(json.dumps({"faults": results, "caught": caught, "failed": bad, "skipped": skipped}))
    else:
        more = f"; {skipped} of CUDA sources skipped: they need build/simt or build/ptxsim" if skipped else ""
        print(f"{caught} of {len(results)} faults caught, {bad} failed{more}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
