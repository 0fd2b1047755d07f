"""Yang, Luo, Loy, Tang: A Large-Scale Car Dataset for Fine-Grained Categorization ... (2015)."""

import os

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files.manifest import Manifest

COUNTS = {"train": (16_016, 431), "test": (14_939, 431)}
_LISTS = os.path.join("train_test_split", "classification")


def compcars(root: str) -> Manifest:
    """Read the classification lists of CompCars: 30,955 images of 431 car models, from the web.

    The layout is `data/image/MAKE/MODEL/YEAR/FILE.jpg` with
    `data/train_test_split/classification/{train,test}.txt` (a path below `image` a line); root is
    `data` or the folder above. A class is a model of a make, called `MAKE/MODEL` by the official
    numbers; the splits share their classes. The column `year` is the model's. The other 105,771
    images of whole cars are in no list of this task; name the folder `data/image` to take all.
    """
    tops = ("", "data", os.path.join("CompCars", "data"), os.path.join("compcars", "data"))
    folder = _official.find_folder(root, tops, _LISTS)
    names: list[str] = []
    split: list[bytes] = []
    for key in COUNTS:
        rows = _official.read_rows(os.path.join(folder, _LISTS, f"{key}.txt"), fields=1)
        names += [row[0] for row in rows]
        split += [key.encode()] * len(rows)
    fields = [name.split("/") for name in names]
    broken = [name for name, words in zip(names, fields, strict=True) if len(words) != 4]
    if broken:
        raise InputError(
            f"{escape(folder)}: {escape(broken[0])} is not MAKE/MODEL/YEAR/FILE; copy the lists "
            "again"
        )
    path = os.path.join(folder, _LISTS)
    models = [_official.parse_number(words[1], path) for words in fields]
    label_names = {
        number: f"{words[0]}/{words[1]}" for number, words in zip(models, fields, strict=True)
    }
    columns = {"split": split, "year": [words[2].encode() for words in fields]}
    manifest = _official.build_manifest(
        os.path.join(folder, "image"), names, models, label_names, columns
    )
    return _official.check_counts(manifest, COUNTS, "CompCars")
