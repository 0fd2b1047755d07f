"""Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 dataset (2011)."""

import os

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files.manifest import Manifest

COUNTS = {"train": (5_864, 100), "test": (5_924, 100)}
_HINT = "CUB-200 of 2010 (6,033 images) is another set, and copies with fewer images are about"


def cub200(root: str) -> Manifest:
    """Read CUB-200-2011: 11,788 images of 200 birds; the first 100 classes train, the others test.

    The layout is `CUB_200_2011/images/NNN.Name/FILE.jpg` with `images.txt` (id, path),
    `image_class_labels.txt` (id, class) and `classes.txt`; root is that folder or the one above.
    The official `train_test_split.txt` is for classification and not used.
    """
    folder = _official.find_folder(root, ("", "CUB_200_2011"), "images.txt")
    images_list = os.path.join(folder, "images.txt")
    labels_list = os.path.join(folder, "image_class_labels.txt")
    names_list = os.path.join(folder, "classes.txt")
    class_of = {
        image: _official.parse_number(number, labels_list)
        for image, number in _official.read_rows(labels_list, fields=2)
    }
    class_names = {
        _official.parse_number(number, names_list): name
        for number, name in _official.read_rows(names_list, fields=2)
    }
    images = _official.read_rows(images_list, fields=2)
    unknown = [name for image, name in images if class_of.get(image) not in class_names]
    if unknown:
        raise InputError(f"{escape(folder)}: {escape(unknown[0])} has no class; {_HINT}")
    classes = [class_of[image] for image, _ in images]
    last = sorted(class_names)[: COUNTS["train"][1]][-1]
    split = [b"train" if number <= last else b"test" for number in classes]
    manifest = _official.build_manifest(
        os.path.join(folder, "images"),
        (name for _, name in images),
        classes,
        class_names,
        {"split": split},
    )
    return _official.check_counts(manifest, COUNTS, "CUB-200-2011", _HINT)
