#!/usr/bin/env python3
"""A few made-up characters in the form in which Omniglot is published, and what Pillow makes of them at 28 x 28.

    make_omniglot.py        needs Pillow and NumPy; writes omniglot/ beside itself

images_background.zip (with a Mac's leftovers, as the published one has), images_evaluation/ and expected_*.npy
((images, 28, 28) u8, ink 255, in order of names).
"""
import io
import os
import random
import zipfile

import numpy
from PIL import Image, ImageDraw

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "omniglot")
PARTS = {"images_background": [("Alpha_(first)", 2), ("Beta", 1)], "images_evaluation": [("Gamma", 2)]}
DRAWINGS = 3


def drawing(seed, size):
    """strokes of black on white, one bit a pixel"""
    draw_from, image = random.Random(seed), Image.new("1", size, 1)
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        pen.line([(draw_from.uniform(5, size[0] - 5), draw_from.uniform(5, size[1] - 5)) for _ in range(4)], fill=0, width=2)
    return image


def main():
    os.makedirs(HERE, exist_ok=True)
    for part, alphabets in PARTS.items():
        images = {}
        for alphabet, characters in alphabets:
            for c in range(1, characters + 1):
                for d in range(1, DRAWINGS + 1):
                    # one is not square and larger than the published 105 x 105
                    size = (150, 97) if (alphabet, c, d) == ("Beta", 1, 2) else (105, 105)
                    images[f"{part}/{alphabet}/character{c:02}/{c:04}_{d:02}.png"] = drawing(f"{alphabet}{c}{d}", size)
        small = [255 - numpy.asarray(images[name].convert("L").resize((28, 28), Image.LANCZOS)) for name in sorted(images)]
        numpy.save(os.path.join(HERE, f"expected_{part[7:]}.npy"), numpy.stack(small))
        names = list(images)
        random.Random(1).shuffle(names)  # the order in an archive says nothing
        if part == "images_background":
            with zipfile.ZipFile(os.path.join(HERE, part + ".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("__MACOSX/images_background/Beta/._character01.png", b"leftover")
                for name in names:
                    data = io.BytesIO()
                    images[name].save(data, "PNG")
                    archive.writestr(zipfile.ZipInfo(name), data.getvalue())
        else:
            for name in names:
                os.makedirs(os.path.dirname(os.path.join(HERE, name)), exist_ok=True)
                images[name].save(os.path.join(HERE, name))


if __name__ == "__main__":
    main()
