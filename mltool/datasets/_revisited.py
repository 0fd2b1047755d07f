"""The one layout of the revisited Oxford and Paris benchmarks."""

import os
from collections.abc import Mapping

import numpy as np

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files import landmarks
from mltool.files.crop_boxes import COLUMNS
from mltool.files.manifest import Manifest


def read_revisited(root: str, folder: str, title: str, counts: Mapping[str, int]) -> Manifest:
    """Read the images of `gnd_FOLDER.pkl`, which lies with `jpg/` in root or its `folder`.

    `counts` are the official ones of the splits query and gallery. Raises InputError for other
    counts, for a query without a box and for missing files.
    """
    listed = f"gnd_{folder}.pkl"
    base = _official.find_folder(root, ("", folder), listed)
    path = os.path.join(base, listed)
    truth = landmarks.read(path)
    sizes = {"query": len(truth.queries), "gallery": len(truth.gallery)}
    for split, images in counts.items():
        if sizes[split] != images:
            raise InputError(
                f"{escape(path)}: the {split} split of {title} has {images:,} images, but here "
                f"are {sizes[split]:,}; fetch it again"
            )
    if np.isnan(truth.boxes).any():
        raise InputError(f"{escape(path)}: a query lacks its bbx; fetch it again")
    is_query = np.arange(sum(sizes.values())) < sizes["query"]
    whole = np.full((sizes["gallery"], len(COLUMNS)), np.nan)
    boxes = np.concatenate([truth.boxes, whole])
    columns = {
        "split": np.where(is_query, b"query", b"gallery"),
        "is_query": is_query,
        "is_gallery": ~is_query,
        **dict(zip(COLUMNS, boxes.T.copy(), strict=True)),
    }
    names = np.concatenate([truth.queries, truth.gallery]).tolist()
    jpg = os.path.join(base, "jpg")
    return _official.build_manifest(
        jpg, (f"{name.decode()}.jpg" for name in names), [], {}, columns
    )
