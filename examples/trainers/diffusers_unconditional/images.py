"""Draws small pictures, so that the example needs no download: images.py FOLDER COUNT SHAPE."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

folder, count, shape = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
folder.mkdir(parents=True, exist_ok=True)
chance = random.Random(shape)
for number in range(count):
    image = Image.new("RGB", (16, 16), tuple(chance.randrange(64) for _ in range(3)))
    x, y = chance.randrange(7), chance.randrange(7)
    draw = getattr(ImageDraw.Draw(image), shape)
    draw((x, y, x + 8, y + 8), fill=tuple(chance.randrange(128, 256) for _ in range(3)))
    image.save(folder / f"{number:03}.png")
