"""Van Horn et al.: Building a bird recognition app and large scale dataset with ... (2015)."""

import os

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files.manifest import Manifest

COUNTS = {"train": (23_929, 555), "test": (24_633, 555)}


def nabirds(root: str) -> Manifest:
    """Read NABirds: 48,562 images of 555 visual categories; the splits share their classes.

    The layout is `nabirds/images/NNNN/FILE.jpg` with `images.txt` (id, path),
    `image_class_labels.txt` (id, class), `classes.txt` (class, name; also of groups of classes) and
    `train_test_split.txt` (id, 1 = train); root is that folder or the one above. A class is called
    `NNNN.Name`. What one species looks like by sex and age are several classes.
    """
    folder = _official.find_folder(root, ("", "nabirds", "NABirds"), "images.txt")
    paths = {
        name: os.path.join(folder, f"{name}.txt")
        for name in ("images", "image_class_labels", "classes", "train_test_split")
    }
    tables = {name: _official.read_rows(path, fields=2) for name, path in paths.items()}
    class_of, is_train = dict(tables["image_class_labels"]), dict(tables["train_test_split"])
    names = dict(tables["classes"])
    images = tables["images"]
    for image, name in images:
        if class_of.get(image) not in names or is_train.get(image) not in ("0", "1"):
            raise InputError(
                f"{escape(folder)}: {escape(name)} has no class or no split; copy the lists again"
            )
    path = paths["image_class_labels"]
    classes = [_official.parse_number(class_of[image], path) for image, _ in images]
    label_names = {
        number: f"{number:04}.{names[class_of[image]]}"
        for number, (image, _) in zip(classes, images, strict=True)
    }
    split = [b"train" if is_train[image] == "1" else b"test" for image, _ in images]
    manifest = _official.build_manifest(
        os.path.join(folder, "images"),
        (name for _, name in images),
        classes,
        label_names,
        {"split": split},
    )
    return _official.check_counts(manifest, COUNTS, "NABirds")
