"""Oh Song, Xiang, Jegelka, Savarese: Deep Metric Learning via Lifted Structured ... (2016)."""

import os

from mltool.datasets import _official
from mltool.files.manifest import Manifest

COUNTS = {"train": (59_551, 11_318), "test": (60_502, 11_316)}
_HINT = "lists of another dataset go by the same file names"


def sop(root: str) -> Manifest:
    """Read Stanford Online Products: 120,053 images of 22,634 products in 12 super classes.

    The layout is `Stanford_Online_Products/KIND_final/FILE.JPG` with `Ebay_train.txt` and
    `Ebay_test.txt` (image, class and super class id, path; one header line); or the images below
    `images/` and the lists in `Info_Files/`. Root is that folder or the one above.
    """
    tops = ("", "Stanford_Online_Products")
    lists = _official.find_folder(
        root,
        [os.path.join(top, sub) for top in tops for sub in ("", "Info_Files")],
        "Ebay_train.txt",
    )
    moved = os.path.basename(lists) == "Info_Files"
    folder = os.path.join(os.path.dirname(lists), "images") if moved else lists
    names: list[str] = []
    classes: list[int] = []
    split: list[bytes] = []
    for key in COUNTS:
        path = os.path.join(lists, f"Ebay_{key}.txt")
        rows = _official.read_rows(path, fields=4, skip=1)
        names += [row[3] for row in rows]
        classes += [_official.parse_number(row[1], path) for row in rows]
        split += [key.encode()] * len(rows)
    kinds = [name.partition("/")[0].removesuffix("_final") for name in names]
    class_names = {number: f"{kind}/{number}" for number, kind in zip(classes, kinds, strict=True)}
    columns = {"split": split, "super_class": [kind.encode() for kind in kinds]}
    manifest = _official.build_manifest(folder, names, classes, class_names, columns)
    return _official.check_counts(manifest, COUNTS, "SOP", _HINT)
