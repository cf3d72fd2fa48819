#!/usr/bin/env python3
"""Labels that change within a sequence: how fast a memory takes up the new ones; with a picture.

    python3 docs/recipes/remapped_labels.py build/release/bin/mica runs/remapped remapped.svg [KEY=VALUE ...]

Trains docs/recipes/remapped_labels.yaml, where labels change at random rows, with one layer of the self-referential matrix
or of the delta rule: without and with a convolution of two tokens in front, and, with one head each, where the labels of half
of all sequences never change but are mostly shown wrong, so that how far to believe a row must be found out, too. Each is
tested on sequences whose labels change every 16 rows and are shown right, and its loss averaged over the rows of equal distance
from the last change (the first 16 rows, before any change, left out). Passes where both memories behind a convolution have,
with one of three seeds, taken up the new labels before the next change (a third of the loss of knowing nothing), and where,
among sequences with noise, the self-referential matrix loses less over those rows than the delta rule with every seed. Which is
faster without noise is printed, not demanded. Finished runs in the folder are not trained again. Needs Python's standard
library only.
"""
import json
import math
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PERIOD, LABELS = 16, 4
MIXERS = {"srwm": ("self-referential matrix", "#cc79a7"), "delta_rule": ("delta rule", "#0072b2")}
# what each learns best with, of what docs/fast_weights.md lists
MORE = {"srwm": ["model.heads=1", "optimizer.lr=1e-2"], "delta_rule": ["model.heads=2", "optimizer.lr=3e-3"]}
NOISE = ["model.heads=1", "family.classes=2", "family.length=96", "family.hazard=0.06", "family.noisy=0.5", "family.noise=0.8",
         "steps=8000"]
NOISY = {"srwm": [*NOISE, "optimizer.lr=5e-3"], "delta_rule": [*NOISE, "optimizer.lr=3e-3"]}
# title, rows of the tested sequences, convolution, seeds, what to train with
PANELS = {
    "plain": ("one layer", 64, 0, (1,), MORE),
    "conv": ("one layer behind a convolution of two tokens", 64, 2, (1, 2, 3), MORE),
    "noise": ("the same, one head, half of all tasks noisy", 96, 2, (1, 2, 3), NOISY),
}


def run(mica, folder, panel, mixer, seed, more):
    """(loss, Bayes' loss) by rows since the last change, nats"""
    _, length, conv, _, settings = PANELS[panel]
    out = os.path.join(folder, f"{panel}_{mixer}_{seed}")
    if not os.path.exists(os.path.join(out, "last.safetensors")):
        subprocess.run([mica, "train", os.path.join(HERE, "remapped_labels.yaml"), "--out", out, "--quiet",
                        f"model.mixer={mixer}", f"model.conv={conv}", f"seed={seed}", *settings[mixer], *more], check=True)
    done = subprocess.run([mica, "eval", out, "--json", "--exact", "bayes", "family.hazard=0", "family.noisy=0",
                           f"family.period={PERIOD}", f"family.length={length}"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    by = lambda losses: [sum(losses[i + PERIOD::PERIOD]) / (length // PERIOD - 1) for i in range(PERIOD)]
    return by(found["loss_by_position"]), by(found["exact_loss_by_position"])


def panel(x0, width, height, title, curves):
    x = lambda row: x0 + 50 + (width - 70) * row / (PERIOD - 1)
    top = math.ceil(max(max(losses) for losses, _ in curves))
    y = lambda loss: height - 44 - (height - 100) * loss / top
    out = [f'<text x="{x0 + 50}" y="44" font-size="14">{title}</text>']
    for tick in range(top + 1):
        out.append(f'<line x1="{x0 + 46}" x2="{x0 + width - 16}" y1="{y(tick)}" y2="{y(tick)}" stroke="#ddd"/>'
                   f'<text x="{x0 + 40}" y="{y(tick) + 4}" text-anchor="end">{tick}</text>')
    for row in (1, 4, 8, 12, 16):
        out.append(f'<text x="{x(row - 1)}" y="{height - 24}" text-anchor="middle">{row}</text>')
    nothing = y(math.log(LABELS))
    out.append(f'<line x1="{x(0)}" x2="{x(PERIOD - 1)}" y1="{nothing}" y2="{nothing}" stroke="#888" stroke-dasharray="4 3"/>'
               f'<text x="{x(PERIOD - 1)}" y="{nothing - 4}" text-anchor="end" fill="#666">knowing nothing</text>'
               f'<text x="{x0 + width / 2 + 20}" y="{height - 6}" text-anchor="middle">row since the change</text>')
    for losses, color in curves:
        at = [(x(i), y(loss)) for i, loss in enumerate(losses)]
        out.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="' +
                   " ".join(f"{a:.1f},{b:.1f}" for a, b in at) + '"/>')
    return out


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    mica, folder, image, more = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    os.makedirs(folder, exist_ok=True)
    width, height, passed = 420, 330, True
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{len(PANELS) * width}" height="{height}" font-family="sans-serif" '
           f'font-size="12">', f'<rect width="{len(PANELS) * width}" height="{height}" fill="white"/>']
    legend = [*MIXERS.values(), ("Bayes, who knows when", "#000000")]
    for i, (name, color) in enumerate(legend):
        svg.append(f'<circle cx="{60 + 190 * i}" cy="18" r="4.5" fill="{color}"/><text x="{70 + 190 * i}" y="22">{name}</text>')
    svg.append(f'<text x="{len(PANELS) * width - 16}" y="22" text-anchor="end">loss, nats</text>')
    for k, (name, (title, _, _, seeds, _)) in enumerate(PANELS.items()):
        losses, bayes = {m: [] for m in MIXERS}, None
        for m in MIXERS:
            for seed in seeds:
                by, bayes = run(mica, folder, name, m, seed, more)
                losses[m].append(by)
        print(f"{title}\n{'row since the change':>28}" + "".join(f"{i + 1:>7d}" for i in (0, 1, 3, 7, 15)) + f"{'mean':>8}")
        for who, by in [*((MIXERS[m][0], by) for m in MIXERS for by in losses[m]), (legend[-1][0], bayes)]:
            print(f"{who:>28}" + "".join(f"{by[i]:7.3f}" for i in (0, 1, 3, 7, 15)) + f"{sum(by) / PERIOD:8.3f}")
        mean = {m: [sum(by) / PERIOD for by in losses[m]] for m in MIXERS}
        if name == "conv":
            passed &= max(min(by[-1] for by in losses[m]) for m in MIXERS) < math.log(LABELS) / 3
        if name == "noise":
            passed &= max(mean["srwm"]) < min(mean["delta_rule"])
        svg += panel(k * width, width, height, title,
                     [*((by, MIXERS[m][1]) for m in MIXERS for by in losses[m]), (bayes, "#000000")])
    with open(image, "w") as file:
        file.write("\n".join(svg + ["</svg>\n"]))
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
