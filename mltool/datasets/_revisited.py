"""The one layout of the revisited Oxford and Paris benchmarks."""

import os
from collections.abc import Mapping

import numpy as np

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files import landmarks
from mltool.files.crop_boxes import COLUMNS
from mltool.files.manifest import Manifest


def revisited(root: str, folder: str, title: str, counts: Mapping[str, int]) -> Manifest:
    """The images of `gnd_FOLDER.pkl`, which lies with `jpg/` in root or its `folder`.

    `counts` are those of the splits query and gallery. Raises InputError.
    """
    listed = f"gnd_{folder}.pkl"
    place = _official.find(root, ("", folder), listed)
    path = os.path.join(place, listed)
    truth = landmarks.read(path)
    found = {"query": len(truth.queries), "gallery": len(truth.gallery)}
    for split, images in counts.items():
        if found[split] != images:
            raise InputError(
                f"{escape(path)}: the {split} split of {title} has {images:,} images, but here "
                f"are {found[split]:,}; fetch it again"
            )
    if np.isnan(truth.boxes).any():
        raise InputError(f"{escape(path)}: a query lacks its bbx; fetch it again")
    is_query = np.arange(sum(found.values())) < found["query"]
    whole = np.full((found["gallery"], len(COLUMNS)), np.nan)
    boxes = np.concatenate([truth.boxes, whole])
    columns = {
        "split": np.where(is_query, b"query", b"gallery"),
        "is_query": is_query,
        "is_gallery": ~is_query,
        **dict(zip(COLUMNS, boxes.T.copy(), strict=True)),
    }
    names = np.concatenate([truth.queries, truth.gallery]).tolist()
    jpg = os.path.join(place, "jpg")
    return _official.manifest(jpg, (f"{name.decode()}.jpg" for name in names), [], {}, columns)
