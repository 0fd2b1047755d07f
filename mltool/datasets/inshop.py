"""Liu, Luo, Qiu, Wang, Tang: DeepFashion: Powering Robust Clothes Recognition ... (2016)."""

import os

import numpy as np

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files.manifest import Manifest

COUNTS = {"train": (25_882, 3_997), "query": (14_218, 3_985), "gallery": (12_612, 3_985)}
_LIST = "list_eval_partition.txt"


def inshop(root: str) -> Manifest:
    """Read In-Shop Clothes Retrieval: train, query and gallery with 52,712 images of 7,982 items.

    The layout is `Eval/list_eval_partition.txt` (or the list in the root; the number of rows, a
    header, then image, item, split) and images as listed, `img/...`, below `Img/` or the root.
    Query and gallery share their classes; the columns `is_query`, `is_gallery` mark them.
    """
    tops = ("", "Inshop_Clothes", "InShop_Clothes", "In-shop Clothes Retrieval Benchmark")
    lists = _official.find_folder(
        root, [os.path.join(t, s) for t in tops for s in ("Eval", "")], _LIST
    )
    path = os.path.join(lists, _LIST)
    top = os.path.dirname(lists) if os.path.basename(lists) == "Eval" else lists
    folder = _official.find_folder(top, ("Img", ""), "img")
    stated = _official.read_rows(path, fields=1)[0][0]
    rows = _official.read_rows(path, fields=3, skip=2)
    if str(len(rows)) != stated:
        raise InputError(f"{escape(path)} has {len(rows):,} rows, but says {escape(stated)}")
    classes = [_official.parse_number(item.rpartition("_")[2], path) for _, item, _ in rows]
    split = np.array([text.encode() for _, _, text in rows])
    columns = {"split": split, "is_query": split == b"query", "is_gallery": split == b"gallery"}
    items = dict(zip(classes, (item for _, item, _ in rows), strict=True))
    manifest = _official.build_manifest(
        folder, (name for name, _, _ in rows), classes, items, columns
    )
    return _official.check_counts(manifest, COUNTS, "In-Shop")
