"""Crop boxes of an image list: the columns `x_1`, `y_1`, `x_2`, `y_2`.

Sides are in pixels of the upright image. A box covers the pixel columns x_1 <= x < x_2 and the
pixel rows y_1 <= y < y_2. An image with empty cells (NaN) is not cropped.
"""

from collections.abc import Mapping

import numpy as np

from mltool.errors import InputError

COLUMNS = ("x_1", "y_1", "x_2", "y_2")


def from_columns(columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the boxes [N, 4] float64 in a list's columns, None if there are none.

    Raises InputError if sides are missing, infinite or in the wrong order.
    """
    present = [key for key in COLUMNS if key in columns]
    if not present:
        return None
    if len(present) < len(COLUMNS):
        lacking = ", ".join(key for key in COLUMNS if key not in present)
        raise InputError(f"a crop box has {', '.join(COLUMNS)}, but the list lacks {lacking}")
    if any(columns[key].dtype.kind not in "fiu" for key in COLUMNS):
        raise InputError(f"the crop boxes are no numbers; correct {', '.join(COLUMNS)}")
    boxes = np.stack([columns[key].astype(np.float64) for key in COLUMNS], axis=1)
    whole = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    if bad := np.count_nonzero(~whole & ~np.isnan(boxes).all(axis=1)):
        raise InputError(
            f"{bad:,} crop boxes have a side missing or no area; correct {', '.join(COLUMNS)}"
        )
    return boxes if whole.any() else None


def crop(pixels: np.ndarray, box: np.ndarray, *, name: str = "the image") -> np.ndarray:
    """Crop pixels [H, W, 3] to a box [4], its sides rounded to whole pixels.

    The box is cut at the border of the image. Raises InputError if no pixel is left.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = np.rint(np.clip(box, 0, [width, height] * 2)).astype(int)
    if left == right or top == bottom:
        shown = ", ".join(f"{side:g}" for side in box)
        raise InputError(
            f"the crop box {shown} holds no pixel of {name}, which is {width} x {height}"
        )
    return np.ascontiguousarray(pixels[top:bottom, left:right])
