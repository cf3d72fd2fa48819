#!/usr/bin/env python3
"""bits per byte of a trained byte model beside gzip and xz on the very same bytes, with a picture.

    python3 docs/recipes/compare_bytes.py build/release/bin/mica runs/udhr udhr.svg

every test document is coded on its own, as the model sees it: its first `family.length` bytes. the compressors' containers
(headers, checksums) are left out: raw deflate at level 9, raw LZMA2 at its highest level; `xz, together` codes all
documents as one stream, which no other column may do. needs Python's standard library only.
"""
import json
import lzma
import os
import subprocess
import sys
import zlib


def deflate(data):
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return len(coder.compress(data) + coder.flush())


def xz(data):
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]))


def setting(run, key):
    """a scalar of the section `family` in RUN/config.yaml as mica writes it"""
    inside = False
    for line in open(os.path.join(run, "config.yaml")):
        if not line.startswith(" "):
            inside = line.startswith("family:")
        elif inside and line.strip().startswith(key + ":"):
            return line.split(":", 1)[1].split("  #")[0].strip().strip('"')
    raise SystemExit(f"{run}/config.yaml: no family.{key}")


def picture(rows, path):
    """one line a document: model, gzip, xz as dots on a common axis"""
    width, left, step, top = 760, 190, 18, 56
    height = top + step * len(rows) + 40
    most = max(max(r[2:]) for r in rows) * 1.05
    x = lambda v: left + (width - left - 20) * v / most
    colors = {"mica": "#0072b2", "gzip": "#e69f00", "xz": "#009e73"}
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           '<text x="12" y="20" font-size="15">bits per byte, each test document on its own</text>']
    for i, (name, color) in enumerate(colors.items()):
        out.append(f'<circle cx="{left + 90 * i}" cy="38" r="4.5" fill="{color}"/><text x="{left + 8 + 90 * i}" y="42">{name}</text>')
    for tick in range(int(most) + 1):
        out.append(f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{top - 6}" y2="{height - 30}" stroke="#ddd"/>'
                   f'<text x="{x(tick)}" y="{height - 12}" text-anchor="middle">{tick}</text>')
    for i, row in enumerate(rows):
        y = top + step * i + 8
        out.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{row[0][:26].replace("&", "and").replace("<", "")}</text>')
        for color, value in zip(colors.values(), row[2:]):
            out.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="4.5" fill="{color}" fill-opacity="0.85"><title>{row[0]}: {value:.3f}</title></circle>')
    out.append("</svg>\n")
    with open(path, "w") as f:
        f.write("\n".join(out))


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    mica, run, image = sys.argv[1:]
    result = json.loads(subprocess.run([mica, "eval", run, "--json"], check=True, capture_output=True, text=True).stdout)
    index_path, length = setting(run, "path"), int(setting(run, "length"))
    index = [row for row in json.load(open(index_path)) if row["split"] == "test"]
    data = open(os.path.splitext(index_path)[0] + ".txt", "rb").read()
    rows, pieces = [], []
    for entry, loss in zip(index, result["task_loss"]):
        piece = data[entry["offset"]:entry["offset"] + min(length, entry["bytes"])]
        pieces.append(piece)
        bits = 8 / len(piece)
        rows.append((entry["name"] or entry["code"], len(piece), loss / 0.6931471805599453, bits * deflate(piece), bits * xz(piece)))
    print(f"{'document':28} {'bytes':>6} {'mica':>7} {'gzip':>7} {'xz':>7}")
    for row in sorted(rows, key=lambda r: r[2]):
        print(f"{row[0][:28]:28} {row[1]:6d} {row[2]:7.3f} {row[3]:7.3f} {row[4]:7.3f}")
    total = sum(r[1] for r in rows)
    mean = [sum(r[k] * r[1] for r in rows) / total for k in (2, 3, 4)]
    together = b"".join(pieces)
    print(f"{'all, each on its own':28} {total:6d} {mean[0]:7.3f} {mean[1]:7.3f} {mean[2]:7.3f}")
    print(f"{'all, together (no model)':28} {total:6d} {'':7} {8 * deflate(together) / total:7.3f} {8 * xz(together) / total:7.3f}")
    print(f"mica is best on {sum(r[2] < min(r[3:]) for r in rows)} of {len(rows)}")
    picture(sorted(rows, key=lambda r: r[2]), image)


if __name__ == "__main__":
    main()
