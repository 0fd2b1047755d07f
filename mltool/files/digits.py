"""scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998), the data that need no folder.

The file inside the scikit-learn package is read directly: importing scikit-learn takes over a
second, in every command and every loader worker.
"""

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np

from mltool.errors import InputError


@functools.cache
def pixels_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Return pixels uint8 [1797, 8, 8], white ink on black, and labels int64 [1797] (the digit).

    Raises InputError when scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise InputError("digits come with scikit-learn, which is not installed")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",")
    pixels = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
    return pixels.reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def name(row: int) -> str:
    """Return the name of a digit in image lists."""
    return f"digits/{pixels_and_labels()[1][row]}/{row:04d}"


def location(row: int) -> str:
    """Return the location of a digit in image lists, see `locations`."""
    return f"digits\0{row}"
