"""Benchmarks in their official layouts, of a few small images whose colour tells their class."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, number: int, seed: int) -> None:
    """Write a small image whose colour tells its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([number, seed])
    colour = np.random.default_rng(number).integers(0, 255, 3)
    pixels = colour + generator.integers(-20, 20, (24, 24, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def write(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def make_cub(folder: Path) -> None:
    """Six birds, six images each; the first four classes train."""
    names = [f"{c:03}.Bird/{n}.jpg" for c in range(1, 7) for n in range(6)]
    for number, name in enumerate(names):
        draw(folder / "images" / name, int(name[:3]), number)
    write(folder / "images.txt", *(f"{n} {name}" for n, name in enumerate(names, start=1)))
    labels = (f"{n} {int(name[:3])}" for n, name in enumerate(names, start=1))
    write(folder / "image_class_labels.txt", *labels)
    write(folder / "classes.txt", *(f"{c} {c:03}.Bird" for c in range(1, 7)))


def make_vehicleid(folder: Path) -> None:
    """Eight cars, six images each: four train, two stand in the smallest test list, all in one."""
    lists = {"train_list": range(4), "test_list_800": range(4, 6), "test_list_1600": range(5, 8)}
    lists |= {"test_list_2400": range(4, 8)}
    (folder / "train_test_split").mkdir(parents=True)
    for name, cars in lists.items():
        rows = (f"{6 * car + n:07} {car}" for car in cars for n in range(6))
        write(folder / "train_test_split" / f"{name}.txt", *rows)
    for number in range(48):
        draw(folder / "image" / f"{number:07}.jpg", number // 6, number)
