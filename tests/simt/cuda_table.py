#!/usr/bin/env python3
"""Writes docs/cuda_kernels.md: kernel x architecture x shape, by ptxsim's counters and ptxas's figures. Needs build/ptxsim.

    cuda_table.py [--rooms a,b] [--jobs 2] [--doc docs/cuda_kernels.md]

With --rooms the other rooms' lines stay as they are.

Every operation runs its bench cases once a face (check_ops --brief: one task, rows cut to what an emulator does in a
moment), and others for kernels that no bench case launches; memories also one head of MEMORY_SHAPES, all tokens of it; rooms
without operations (the optimizer) run a step of a recipe and a unit test.
A row is one kernel, face and shape: of its launches the largest, of a room's operations on it the one that takes the most
registers. Exit code 1 when a kernel was never launched, or asks for over 1.3 times the sectors or 1.2 times the
shared-memory wavefronts that it needs and WHY has no sentence about it; WHY may not say more than is needed either.
"""
import argparse
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from budget import SOURCES, plain, read_object, sources

BUILD = os.path.join(SOURCES, "build/ptxsim")
FACES = ("forward", "backward", "jvp", "backward_jvp")
SM = ("sm_80", "sm_90a")                      # ptxsim runs the PTX of the last
GPU = "H100"
SECTORS, WAVEFRONTS = 1.3, 1.2
# kernel: a sentence on why it asks for more than it needs
SHARED = ("its products read shared memory by 16 bytes a lane; of a quarter warp, all eight or four lanes ask for the same 16 bytes of "
          "one operand, and the pass that serves them carries no more: counted against 128 bytes a pass that is waste, but each word "
          "read this way stays in registers for {}")
WHOLE_SUM = ("every lane reads the eight doubles of a block's sum: a load of 8 bytes a lane takes a pass for each half of a warp, and both "
             "ask for the same word")
ROWS_OF_64 = ("bf16 heads of 32 have rows of 64 bytes and a pad of 16: a quarter warp copies two rows into shared memory at once, and these "
              "share four banks. Copying rows r and r + 4 together frees them and takes 5 to 10 % more instructions, which are the bound")
DOUBLES = ("vectors of doubles are read by all lanes at once: 8 bytes a lane take a pass for each half of a warp, and both ask for the "
           "same words; of tasks with few rows (the bench's are cut here) the four sums of a warp are of rows side by "
           "side, which meet in banks")
TURNED = ("rows of the chunk lie K + 8 apart, which reading by rows wants: where a product takes columns, a quarter of a warp reads rows "
          "0, 2, 4 and 6 of eight, and 0 and 4 share banks. Tokens 4 and 5, and 6 and 7, the other way round in all fragments would mend "
          "it without a select, but instructions are what bounds these kernels, and the walks of the delta rule with tangents at K = 64 "
          "have no registers left for it")
FADED = ("; with decay what runs down a chunk is read 16 bytes a lane, the same ones by half a warp: a pass for each quarter of it, and "
         "rows of a lane's own key meet in banks")
NEXT = ("states that lie in scratch have hidden units side by side; u, e and on the way back q- and k- are sums over them, a thread "
        "each: what it reads next lies in the same sectors")
WHY = {
    "product_kernel": SHARED.format("4 to 8 fmas"),
    "attention_forward": SHARED.format("2 to 4 fmas"),
    "attention_jvp": SHARED.format("2 to 4 fmas"),
    "attention_keys": SHARED.format("2 to 4 fmas"),
    "attention_queries": SHARED.format("2 to 4 fmas"),
    "attention_bias": SHARED.format("2 to 4 fmas") + "; and the bias of this case has rows of 5 floats, which begin inside sectors",
    "attention_sums": "the sums of scale and slopes lie in pairs and a launch adds up one of the two: half of each sector. It reads two "
                      "doubles a tile of scores, after kernels that read the tiles",
    "attention_mma_forward": ROWS_OF_64,
    "attention_mma_jvp": ROWS_OF_64,
    "attention_mma_keys": "bf16 results leave as the products left them, 16 bytes of a row at a time: two stores for a sector. To turn them "
                          "around first would take more instructions, and those are the bound",
    "attention_wgmma_keys": "lse and delta are read in pairs, 8 bytes a lane, by half warps, and both halves ask for the same 32 bytes",
    "memory_down": SHARED.format("a fma with each column of the state that a lane holds"),
    "memory_up": SHARED.format("a fma with each column of the state that a lane holds"),
    "implicit_system": WHOLE_SUM,
    "implicit_vectors": WHOLE_SUM,
    "directions_dot": WHOLE_SUM,
    "memory_chunk_down": TURNED + FADED,
    "memory_chunk_walks": TURNED + FADED,
    "memory_chunk_join": TURNED,
    "norm2_tree_kernel": "the tree adds neighbours first, so that bits do not depend on how many there are: later levels read doubles "
                         "that lie apart, one block over a few hundred of them",
    "cells_down": "the tangent of a maximum is read where the maximum lies, which is another row for each column",
    "bn_sums": "a thread's sums of four channels go to shared memory once a block, 32 bytes from thread to thread",
    "bn_apply": "the numbers of a block's channels are read from shared memory once, both halves of a warp ask for the same 256 bytes",
    "conv_images": SHARED.format("4 to 8 fmas") + "; weights go to shared memory in the order in which they are read, a tap or an input after another",
    "conv_weights": SHARED.format("4 to 8 fmas") + "; w lies as (O,I,K,K): the results of a tap are K x K numbers apart, and the blocks of "
                    "the other taps write the rest of each sector",
    "conv_weights_mma": "w lies as (O,I,K,K): the results of a tap are K x K numbers apart, and the blocks of the other taps write the rest "
                        "of each sector",
    "mlp_loop": SHARED.format("2 to 4 fmas") + "; where theta does not fit into shared memory a lane reads a row of weights, whose sectors "
                "serve its next reads too; and sums of tasks of several chunks lie in scratch, where a warp takes a few neighbours of each row; the row of 64 threads is a unit test's that keeps u out of shared memory and cuts rows into chunks of 4. with "
                "theta and u there, tasks of one chunk ask for 1.01 to 1.17 times what they need, others for up to 1.55",
    "mlp_memory_down": NEXT,
    "mlp_memory_up": NEXT,
    "ridge_forward": DOUBLES,
    "ridge_jvp": DOUBLES,
    "ridge_backward": DOUBLES,
    "ridge_backward_jvp": DOUBLES,
    "feature_dpfp": "the sign of x picks which half of the cotangent's row a lane reads, so neighbours read from both",
}
# operations of a room that run the same machine code: those that stand for all
LIKE = {"elementwise": ("gelu", "sqrt", "add", "div", "where")}
# cases that launch kernels which no bench case does; all others but slow ones are looked through when these are not enough
LOOK_FIRST = (("attention", "13"), ("attention", "20"), ("attention", "193"), ("linear", "3"), ("delta_rule", "6"), ("gelu", "1"), ("add", "1"),
              ("mlp_memory", "11"))
# attention where the peers time it: (tasks, rows, heads, columns), causal; one task and one head of it run
SHAPES = ((512, 41, 8, 32), (512, 82, 8, 32), (512, 128, 8, 32), (4, 1024, 8, 64))
GPUS = ("H100", "H200")
# memories where they go in chunks: tokens, K and V of one task and one head; operation -> its wires of rows, and settings
MEMORY_SHAPES = ((256, 32), (64, 16), (128, 64))
BARE = ("state_in=none", "state_out=none")
MEMORIES = {"delta_rule": (("beta",), BARE), "gated_delta": (("beta", "decay"), BARE),
            "linear_attention": ((), (*BARE, "decay=none", "norm_in=none", "norm_out=none"))}
OF_LAUNCH = ("dram", "l2")                    # resources that all multiprocessors share
SHAPES_HEAD = """
## Attention at the benchmark's shapes

One task and one head of each shape run on ptxsim, all rows of it, causal; all tasks and heads do the same work, so the other
counts are multiples. The bound is the model above for the whole launch on all 132 multiprocessors: `dram` and `l2` times the
number of tasks and heads, the others times that / 132 x the multiprocessors that the sample's blocks took. Full waves, no
latency, no cache. Tensor: share of the bound that the tensor cores' products alone would take at the published peak (bf16
989, tf32 495 TFLOP/s). Sectors of copies by TMA are not among those that warps ask for.

| (B, T, H, D) | type, face | kernel | blocks x threads of the sample | sectors | wavefronts | fp32 flop | tensor flop | H100, us | H200, us | tensor |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
HEAD = """# CUDA kernels, as counted

Generated by `tests/simt/cuda_table.py`. Where two figures stand, the first is of sm_80, the second of sm_90a.

- Registers a thread and static shared memory (+ dynamic) in bytes are ptxas's; nothing spills (`tests/simt/budget.py` sees to
  it on every build). Occupancy is the share of a multiprocessor's 64 warps that these and the block's threads leave room for.
- ptxsim runs the sm_90a PTX of each operation's bench cases, one task of the named shape with rows cut to what an emulator
  does in a moment; the largest launch of each kernel counts, and where no bench case launches a kernel (bf16, biases, sums
  of shared slots) the first of a small case. The memories' kernels in chunks run on one head of the shapes with B=1 H=1, all
  tokens of it. The sources have no branch by architecture, so sm_80 counts the same. A face
  is the one that is checked; it may need others' results. Sectors: 32-byte sectors of global memory that warps ask for, over
  those that would hold what they use. Wavefronts: passes of shared memory, over the fewest for the same words.
  Kernels of sm_90a alone have one figure.
- flop counts executed fp32 and fp64 instructions, an fma as 2 (+ those of tensor cores).
- **The bound is a model, not a measurement**: the largest of these times for the counts of that one launch, with an H100's
  published rates and as many multiprocessors as it has blocks: touched sectors x 32 / HBM bandwidth (`dram`), the same summed
  over blocks / L2 bandwidth (`l2`), wavefronts / SM clock (`shared`), warp instructions / 4 a clock (`issue`), instructions of
  a kind / its throughput (`fp32`, `int`, `sfu`, `cvt`, `fp64`), tensor flop / peak (`tensor`). No latency, no cache, and PTX
  counts where the GPU runs what ptxas made of it: a few microseconds of such a launch say nothing about a full one.
"""


def run(program, arguments, environment=None):
    return subprocess.run([os.path.join(BUILD, "bin", program)] + arguments, capture_output=True, text=True,
                          env={**os.environ, **(environment or {})})


def compiled():
    """(sm, mangled kernel) -> registers and shared memory; room -> kernel -> mangled names: from the objects of the build"""
    found, rooms = {}, {}
    for file in sources():
        for sm, mangled, of in read_object(os.path.join(BUILD, "cuda", file + ".o"))[0]:
            found[sm, mangled] = of
            rooms.setdefault(file.split("/")[1], {}).setdefault(plain(mangled), set()).add(mangled)
    return found, rooms


def occupancy(sm, threads, registers, shared):
    """share of a multiprocessor's 64 warps (registers come by 256 a warp; a block's shared memory costs 1 KB more)"""
    warps = (threads + 31) // 32
    by = [64 // warps, 32, 65536 // max(1, (registers * 32 + 255) // 256 * 256 * warps)]
    if shared:
        by.append((164 if sm == "sm_80" else 228) * 1024 // (shared + 1024))
    return min(by) * warps / 64


# rooms that check_ops does not know: (unit test, operation, face and shape as the table says, recipe and its overrides)
WITHOUT_OPERATIONS = {
    "optimizer": ("test_optimizer_cuda", "AdamW", "step", "a recipe's; unit test",
                  ["linear_regression.yaml", "batch=4", "grain=2", "model.layers=2"]),
    "mlp": ("test_adapt_fused_cuda", "inner loop", "down and back", "a recipe's; unit test",
            ["maml_sinusoid.yaml", "batch=4", "grain=4"]),
    "implicit": ("test_adapt_cuda", "solve", "backward", "a recipe's; unit test",
                 ["maml_sinusoid.yaml", "batch=4", "grain=4", "inner.method=implicit", "inner.proximal=1"]),
    "directions": ("test_adapt_cuda", "zero order", "backward", "a recipe's; unit test",
                   ["maml_sinusoid.yaml", "batch=4", "grain=4", "inner.method=zero_order", "inner.directions=2"]),
}


def launches(program, arguments):
    """the launches of a run, as ptxsim's statistics"""
    with tempfile.TemporaryDirectory() as folder:
        return launches_in(os.path.join(folder, "stats"), program, arguments)


def launches_in(stats, program, arguments, gpu=GPU):
    done = run(program, arguments, {"PTXSIM_STATS": stats, "PTXSIM_GPU": gpu, "PTXSIM_RACE": "0"})
    if done.returncode:
        sys.exit(f"cuda_table.py: {program} {' '.join(arguments)}: {done.stdout[-600:]}{done.stderr[-600:]}")
    if not os.path.exists(stats):
        return []
    with open(stats) as file:
        return [json.loads(line) for line in file]


def rows_of(found, room, op, face, shape, figures, dense=False):
    """a row for each kernel, of its largest launch; `dense`: of its first, before check_ops turns to layouts with gaps"""
    largest = {}
    for s in found:
        if s["kernel"] not in largest or (not dense and s["thread_instructions"] > largest[s["kernel"]]["thread_instructions"]):
            largest[s["kernel"]] = s
    out = []
    for s in largest.values():
        built = [sm for sm in SM if (sm, s["kernel"]) in figures]
        of = [figures[sm, s["kernel"]] for sm in built]
        threads = s["block"][0] * s["block"][1] * s["block"][2]
        dynamic = max(0, s["shared_bytes"] - of[-1]["shared"])

        def ratio(kinds, asked, needed):
            least = sum(s[k][needed] for k in kinds)
            return sum(s[k][asked] for k in kinds) / least if least else 0

        by = s["thread_instructions_by_class"]
        flop = sum(n * (2 if k.endswith("fma") else 1) for k, n in by.items() if k.startswith("fp"))
        out.append({"kernel": plain(s["kernel"]), "mangled": s["kernel"], "room": room, "op": op, "face": face, "shape": shape,
                    "grid": "x".join(str(n) for n in s["grid"] if n > 1) or "1", "threads": threads,
                    "registers": [f["registers"] for f in of], "shared": of[-1]["shared"], "dynamic": dynamic,
                    "stack": [f["stack"] for f in of],
                    "occupancy": [occupancy(sm, threads, f["registers"], f["shared"] + dynamic) for sm, f in zip(built, of)],
                    "sectors": ratio(("global_load", "global_store"), "sectors", "ideal_sectors"),
                    "waves": ratio(("shared_load", "shared_store"), "wavefronts", "ideal"),
                    "flop": flop, "tensor": sum(s["tensor_flops"].values()), "us": s["model"]["bound_us"],
                    "limiter": s["model"]["limiter"]})
    return out


def write_wires(path, wires):
    """wires: name -> (shape, numbers between which it is drawn)"""
    chance, head, at = random.Random(1), {}, 0
    for name, (shape, _) in wires.items():
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * math.prod(shape)]}
        at += 4 * math.prod(shape)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape, between in wires.values():
            n = math.prod(shape)
            file.write(struct.pack(f"<{n}f", *(chance.uniform(*between) for _ in range(n))))


def of_operation(op, wires, settings, gpu=GPU, dtype="f32"):
    """the launches of all four faces"""
    with tempfile.TemporaryDirectory() as folder:
        ports, stats = os.path.join(folder, "in.safetensors"), os.path.join(folder, "stats")
        write_wires(ports, wires)
        return launches_in(stats, "mica", ["op", op, "--face", "backward_jvp", "--backend", "cuda", "--dtype", dtype, "--in", ports,
                                           "--out", os.path.join(folder, "out.safetensors")]
                           + [word for setting in settings for word in ("--set", setting)], gpu)


def memory_rows(op, figures, jobs):
    """rows of a memory's kernels at MEMORY_SHAPES: the last flag of a rule says whether there are tangents"""
    more, settings = MEMORIES[op]

    def one(shape):
        T, K = shape
        wires = {n: ([1, T, 1, K], (-1, 1)) for n in ("q.v", "v.v", "q.t", "k.t", "v.t", "out.d", "out.td")}
        wires["k.v"] = ([1, T, 1, K], (0, 2 / K))
        for name in more:
            rows = [1, T, 1] + [1] * (name == "decay")
            wires[name + ".v"], wires[name + ".t"] = (rows, (0.5, 1)), (rows, (-1, 1))
        found, out = of_operation(op, wires, settings), []
        for n, face in enumerate(FACES):
            own = [s for s in found if ("down" in plain(s["kernel"])) == (n % 2 == 0) and
                   (re.findall("Lb([01])E", s["kernel"]) + ["0"] * 3)[2] == str(n // 2)]
            out += rows_of(own, op, op, face, f"B=1 T={T} H=1 K={K} V={K}" + " A=1" * ("decay" in more), figures)
        return out

    with ThreadPoolExecutor(jobs) as pool:
        return [r for rows in pool.map(one, MEMORY_SHAPES) for r in rows]


def face_of(mangled):
    name = plain(mangled)
    return ("forward" if name.endswith("forward") else "jvp" if name.endswith("jvp") else
            "backward_jvp" if "Lb1E" in mangled else "backward")


def sample(shape, dtype, gpu):
    """the launches of all four faces, one task and one head"""
    _, T, _, D = shape
    wires = {n: ([1, T, 1, D], (-1, 1)) for n in ("q.v", "k.v", "v.v", "q.t", "k.t", "v.t", "out.d", "out.td")}
    return of_operation("attention", wires, ["mask=causal"], gpu, dtype)


def attention_shapes(jobs):
    """lines of the second table, and kernel -> what it asks for too much of"""
    asked = [(shape, dtype, gpu) for shape in SHAPES for dtype in ("f32", "bf16") for gpu in GPUS]
    with ThreadPoolExecutor(jobs) as pool:
        found = dict(zip(asked, pool.map(lambda a: sample(*a), asked)))
    out, over = SHAPES_HEAD.split("\n"), {}
    for shape in SHAPES:
        for dtype in ("f32", "bf16"):
            for face in FACES:
                for n, s in enumerate(found[shape, dtype, GPUS[0]]):
                    if face_of(s["kernel"]) != face:
                        continue
                    blocks, times, bounds = s["grid"][0] * s["grid"][1] * s["grid"][2], shape[0] * shape[2], []
                    for gpu in GPUS:
                        us = {k: v * times * (1 if k in OF_LAUNCH else min(blocks, 132) / 132)
                              for k, v in found[shape, dtype, gpu][n]["model"]["us"].items()}
                        most = max(us, key=us.get)
                        bounds.append((us[most], most, us["tensor"] / us[most]))
                    by, tensor = s["thread_instructions_by_class"], sum(s["tensor_flops"].values())
                    flop = sum(c * (2 if k.endswith("fma") else 1) for k, c in by.items() if k.startswith("fp"))

                    def ratio(kinds, asked, needed):
                        least = sum(s[k][needed] for k in kinds)
                        return sum(s[k][asked] for k in kinds) / least if least else 0

                    sectors = ratio(("global_load", "global_store"), "sectors", "ideal_sectors")
                    waves = ratio(("shared_load", "shared_store"), "wavefronts", "ideal")
                    if sectors > SECTORS or waves > WAVEFRONTS:
                        over.setdefault(plain(s["kernel"]), []).append(
                            excess(f"attention: {plain(s['kernel'])} ({shape} {dtype} {face})", sectors, waves))
                    out.append("| " + " | ".join((
                        str(shape), f"{dtype} {face}", f"`{plain(s['kernel'])}`",
                        f"{blocks} x {s['block'][0] * s['block'][1] * s['block'][2]}",
                        bold(sectors, SECTORS), bold(waves, WAVEFRONTS), f"{flop * times:.3g}",
                        f"{tensor * times:.3g}" if tensor else "-",
                        *(f"{us:.3g} {most}" for us, most, _ in bounds), f"{bounds[0][2]:.0%}" if tensor else "-")) + " |")
    return out, over


def unseen(kernels, rows, kept):
    """kernels of a room that no launch of any room was of, nor lines that stay (rooms share the code of some)"""
    seen = {r["mangled"] for r in rows}
    return {name for name, mangled in kernels.items() if not mangled & seen and not any(f": `{name}`" in line for line in kept)}


def measure(rooms, jobs, kept):
    with open(os.path.join(SOURCES, "kernels", "ops.def")) as file:
        ops = re.findall(r"^MICA_OP\((\w+), *(\w+)\)", file.read(), re.M)
    figures, kernels = compiled()
    rows = []

    def of_case(room, op, number, shape, *layouts, bench=False):
        """rows of a case, in every face"""
        def one(face):
            found = launches("check_ops", ["--backend", "cuda", *layouts, "--op", op, "--case", number, "--face", face])
            return rows_of(found, room, op, face, shape, figures, dense=not bench)

        with ThreadPoolExecutor(jobs) as pool:
            return [r for of_face in pool.map(one, FACES) for r in of_face]

    for room in sorted(kernels):
        if rooms and room not in rooms:
            continue
        of_room = []
        if room in WITHOUT_OPERATIONS:
            test, op, face, shape, recipe = WITHOUT_OPERATIONS[room]
            with tempfile.TemporaryDirectory() as out:
                train = [os.path.join(SOURCES, "docs/recipes", recipe[0]), "--out", os.path.join(out, "run"), "--quiet"] + recipe[1:]
                found = launches("mica", ["train"] + train + ["steps=1", "device=cuda"]) + launches(test, [])
            found = [s for s in found if plain(s["kernel"]) in kernels[room]]
            of_room += rows_of(found, room, op, face, shape, figures)
        own = [op for op, of in ops if of == room and op in LIKE.get(room, [op])]
        cases = [(op, *case) for op in own for case in
                 re.findall(r"case (\d+)  (.*?)(?: +(\[.*))?$", run("check_ops", ["--list", "--op", op]).stdout, re.M)]
        cases = [c for c in cases if "[slow]" not in c[3] or c[:2] in LOOK_FIRST]
        for op, number, shape, flags in cases:
            if "[bench]" in flags:
                of_room += of_case(room, op, number, shape, "--brief", bench=True)
        if room in MEMORIES:
            of_room += memory_rows(room, figures, jobs)
        # kernels that no bench case launches, from other cases, and from more layouts of memory
        cases = [c for c in cases if "[bench]" not in c[3]]
        first, rest = [c for c in cases if c[:2] in LOOK_FIRST], [c for c in cases if c[:2] not in LOOK_FIRST]
        for (op, number, shape, flags), layouts in [(c, l) for some in (first, rest) for l in ("--brief", "--quick") for c in some
                                              if l == "--brief" or "[slow]" not in c[3]]:
            missing = unseen(kernels[room], rows + of_room, kept)
            if missing:
                slow = ["--slow"] if "[slow]" in flags else []
                of_room += [r for r in of_case(room, op, number, shape, layouts, *slow) if r["kernel"] in missing]
        print(f"{room}: {len(kernels[room])} kernels, {len(unseen(kernels[room], rows + of_room, kept))} of them not launched", flush=True)
        rows += of_room
    return rows, kernels


def pair(figures, form="{}"):
    """a figure of each architecture, once where they are the same"""
    text = [form.format(f) for f in figures]
    return text[0] if len(set(text)) == 1 else " / ".join(text)


def bold(value, most):
    return f"**{value:.2f}**" if value > most else f"{value:.2f}" if value else "-"


def excess(what, sectors, waves):
    return f"{what}: sectors {sectors:.2f}, wavefronts {waves:.2f}, expected at most {SECTORS} and {WAVEFRONTS}, or a sentence in WHY"


def reasons(over, lines):
    """of kernels over the limits, and of those that older lines show so"""
    high = set(over) | {k for line in lines if "**" in line for k in re.findall("`(.*?)`", line)}
    return ["", "What asks for more than it needs, and why:", ""] + [f"- `{k}`: {WHY[k]}" for k in sorted(high) if k in WHY]


def table(rows, kept):
    """lines of the first table, and kernel -> what it asks for too much of; `kept`: lines that stay"""
    # of operations that share kernel, face and shape the one that asks for most
    worst, over = {}, {}
    for r in rows:
        key = (r["room"], r["kernel"], r["face"], r["shape"], r["threads"])
        if key not in worst or (r["sectors"] + r["waves"], r["flop"]) > (worst[key]["sectors"] + worst[key]["waves"], worst[key]["flop"]):
            worst[key] = r
    lines = list(kept)
    for r in worst.values():
        if r["sectors"] > SECTORS or r["waves"] > WAVEFRONTS:
            over.setdefault(r["kernel"], []).append(excess(f"{r['room']}: {r['kernel']} ({r['op']} {r['face']} {r['shape']})",
                                                           r["sectors"], r["waves"]))
        lines.append("| " + " | ".join((
            f"{r['room']}: `{r['kernel']}`", f"{r['op']} {r['face']}", re.sub(r" \w+=none", "", r["shape"]),
            f"{r['grid']} x {r['threads']}", pair(r["registers"]),
            f"{r['shared']}" + (f" + {r['dynamic']}" if r["dynamic"] else ""), pair(r["occupancy"], "{:.0%}"),
            bold(r["sectors"], SECTORS), bold(r["waves"], WAVEFRONTS),
            f"{r['flop']:.3g}" + (f" + {r['tensor']:.3g}" if r["tensor"] else ""), f"{r['us']:.3g} {r['limiter']}")) + " |")
    lines.sort(key=lambda line: line[2:line.index(":")])  # by room
    out = [HEAD, "| room: kernel | operation, face | shape | blocks x threads | registers | shared memory | occupancy | sectors | "
           "wavefronts | flop | modelled bound, us |", "|" + " --- |" * 11] + lines
    return out, over


def old_lines(doc, rooms):
    """of a document: lines of the first table of rooms that are not measured anew, and the second table"""
    with open(doc) as file:
        first, _, second = file.read().partition(SHAPES_HEAD.split("\n")[1])
    kept = [line for line in first.splitlines() if re.match(r"\| \w+: `", line) and line[2:line.index(":")] not in rooms]
    return kept, ["", *(SHAPES_HEAD.split("\n")[1] + second.rstrip("\n")).split("\n")] if second else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--doc", default=os.path.join(SOURCES, "docs", "cuda_kernels.md"))
    o = parser.parse_args()
    rooms = o.rooms.split(",") if o.rooms else None
    kept, shapes = old_lines(o.doc, rooms) if rooms else ([], [])
    rows, kernels = measure(rooms, o.jobs, kept)
    out, over = table(rows, kept)
    if not rooms or "attention" in rooms:
        shapes, more = attention_shapes(o.jobs)
        for kernel, lines in more.items():
            over.setdefault(kernel, []).extend(lines)
    out += reasons(over, kept + shapes) + shapes
    red = [f"{room}: {k} was launched by no case" for room in sorted(kernels) if not rooms or room in rooms
           for k in sorted(unseen(kernels[room], rows, kept))]
    red += [line for k in sorted(over) if k not in WHY for line in over[k]]
    if not rooms:
        red += [f"WHY has a sentence about {k}, which asks for no more than it needs: take it out" for k in sorted(WHY) if k not in over]
    with open(o.doc, "w") as file:
        file.write("\n".join(out) + "\n")
    for line in red:
        print("RED " + line)
    sys.exit(1 if red else 0)


if __name__ == "__main__":
    main()
