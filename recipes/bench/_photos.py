"""JPEGs made for a benchmark: a folder of classes, each with a palette."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, *, classes: int, each: int, side: int) -> None:
    """Write smooth colour fields with texture, `side` x 3/4 `side` pixels, one palette a class."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        of_class = folder / f"class{number:02d}"
        of_class.mkdir(parents=True)
        base = generator.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        for item in range(each):
            field = base.astype(int) + generator.integers(-40, 40, base.shape)
            small = Image.fromarray(field.clip(0, 255).astype(np.uint8))
            image = np.asarray(small.resize((side, side * 3 // 4), Image.Resampling.BICUBIC))
            noisy = image.astype(int) + generator.integers(-12, 12, image.shape)
            jpeg = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            jpeg.save(of_class / f"{item:03d}.jpg", quality=90)
