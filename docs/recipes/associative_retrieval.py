#!/usr/bin/env python3
"""Associative retrieval: how many keys a memory holds, by the rule that writes it; with a picture.

    python3 docs/recipes/associative_retrieval.py build/release/bin/mica runs/retrieval retrieval.svg [KEY=VALUE ...]

Trains docs/recipes/associative_retrieval.yaml for each number of keys, mixer, and with keys bound once or twice on
average, and evaluates each on test tasks. Passes where, with more keys than a head's 16 key channels, the delta rule
has a lower loss than additive linear attention, and softmax attention is the ceiling: below additive linear attention, and
not above the delta rule by more than 0.01 nats. Softmax attention sees no order but by positions, and with keys bound anew
the later of two equal keys counts: it gets scores that fall with the distance (positions=alibi), where learned positions
would have to learn that for every pair of rows. Finished runs in the folder are not trained again. Needs Python's standard
library only.
"""
import json
import math
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
KEYS, CHANNELS = (8, 16, 32), 16
MIXERS = {"linear_attention": ("additive linear attention", "#d55e00"), "delta_rule": ("delta rule", "#0072b2"),
          "attention": ("softmax attention", "#009e73")}
MORE = {"attention": ["model.positions=alibi"]}


def run(mica, folder, mixer, keys, rebind, more):
    """test loss, nats a query"""
    out = os.path.join(folder, f"{mixer}_{keys}_{'rebound' if rebind else 'once'}")
    if not os.path.exists(os.path.join(out, "last.safetensors")):
        settings = [f"model.mixer={mixer}", f"family.keys={keys}", f"family.values={keys}",
                    f"family.pairs={2 * keys if rebind else keys}", f"family.rebind={'yes' if rebind else 'no'}"]
        subprocess.run([mica, "train", os.path.join(HERE, "associative_retrieval.yaml"), "--out", out, "--quiet",
                        *settings, *MORE.get(mixer, []), *more], check=True)
    done = subprocess.run([mica, "eval", out, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["loss"]


def panel(x0, width, height, title, losses, log_keys):
    """one set of axes: loss as a part of log(keys), the loss of knowing nothing"""
    x = lambda keys: x0 + 50 + (width - 70) * (math.log2(keys) - log_keys[0]) / (log_keys[1] - log_keys[0])
    y = lambda part: height - 44 - (height - 100) * min(part, 1)
    out = [f'<text x="{x0 + 50}" y="44" font-size="14">{title}</text>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<line x1="{x0 + 46}" x2="{x0 + width - 16}" y1="{y(tick)}" y2="{y(tick)}" stroke="#ddd"/>'
                   f'<text x="{x0 + 40}" y="{y(tick) + 4}" text-anchor="end">{tick}</text>')
    for keys in KEYS:
        out.append(f'<text x="{x(keys)}" y="{height - 24}" text-anchor="middle">{keys}</text>')
    out.append(f'<line x1="{x(CHANNELS)}" x2="{x(CHANNELS)}" y1="{y(1)}" y2="{y(0)}" stroke="#888" stroke-dasharray="4 3"/>'
               f'<text x="{x(CHANNELS) + 5}" y="{y(1) + 12}" fill="#666">key channels of a head</text>'
               f'<text x="{x0 + width / 2 + 20}" y="{height - 6}" text-anchor="middle">keys</text>')
    for mixer, (_, color) in MIXERS.items():
        at = [(x(k), y(losses[mixer, k] / math.log(k))) for k in KEYS]
        out.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="' +
                   " ".join(f"{a:.1f},{b:.1f}" for a, b in at) + '"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{color}"/>' for a, b in at]
    return out


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    mica, folder, image, more = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    os.makedirs(folder, exist_ok=True)
    width, height, passed = 420, 330, True
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{2 * width}" height="{height}" fill="white"/>']
    for i, (name, color) in enumerate(MIXERS.values()):
        svg.append(f'<circle cx="{60 + 200 * i}" cy="18" r="4.5" fill="{color}"/><text x="{70 + 200 * i}" y="22">{name}</text>')
    svg.append(f'<text x="{2 * width - 16}" y="22" text-anchor="end">loss / loss of knowing nothing</text>')
    for rebind in (0, 1):
        losses = {(m, k): run(mica, folder, m, k, rebind, more) for k in KEYS for m in MIXERS}
        title = "each key bound once" if not rebind else "keys re-bound: twice as many pairs as keys"
        print(f"{title}\n{'keys':>6}" + "".join(f"{name:>28}" for name, _ in MIXERS.values()))
        for k in KEYS:
            print(f"{k:6d}" + "".join(f"{losses[m, k]:28.4f}" for m in MIXERS))
            if k > CHANNELS:
                passed &= losses["delta_rule", k] < losses["linear_attention", k]
                passed &= losses["attention", k] < losses["linear_attention", k]
                passed &= losses["attention", k] < losses["delta_rule", k] + 0.01
        svg += panel(rebind * width, width, height, title, losses, (math.log2(KEYS[0]), math.log2(KEYS[-1])))
    with open(image, "w") as file:
        file.write("\n".join(svg + ["</svg>\n"]))
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
