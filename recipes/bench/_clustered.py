"""Embeddings as a trained model makes them: classes of unequal size around random directions."""

from pathlib import Path

import numpy as np

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

BLOCK = 50_000  # rows made at a time


def draw_labels(rows: int, classes: int, seed: int = 0) -> np.ndarray:
    """Return labels [rows], every class at least twice, as in the field's test sets."""
    generator = np.random.default_rng(seed)
    twice = np.repeat(np.arange(classes), 2)[:rows]
    return np.sort(np.concatenate([twice, generator.integers(0, classes, rows - len(twice))]))


def write(
    path: Path, *, rows: int, dim: int, classes: int, noise: float, labelled: bool = True
) -> None:
    """Write unit vectors float32 [rows, dim]; noise 2.5 gives a precision@1 of about 0.4 at SOP.

    Their labels are those of `draw_labels`, and in the file if `labelled`.
    """
    generator = np.random.default_rng(0)
    labels = draw_labels(rows, classes)
    centres = generator.standard_normal((classes, dim), np.float32)
    vectors = np.lib.format.open_memmap(
        path.with_suffix(".npy"), "w+", dtype=np.float32, shape=(rows, dim)
    )
    for start in range(0, rows, BLOCK):
        part = slice(start, min(start + BLOCK, rows))
        block = centres[labels[part]]
        block += noise * generator.standard_normal(block.shape, np.float32)
        vectors[part] = block / np.linalg.norm(block, axis=1, keepdims=True)
    names = np.char.mod("%08d", np.arange(rows)).astype("S")
    stored = Embeddings(
        names, vectors, labels if labelled else None, normalized=True, space="bench"
    )
    embeddings.write(path, stored)
    path.with_suffix(".npy").unlink()
