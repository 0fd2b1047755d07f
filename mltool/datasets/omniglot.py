"""Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic ... (2015)."""

import os

import numpy as np

from mltool.datasets import _official
from mltool.files.lists.folder import find_images
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray

COUNTS = {"background": (19_280, 964), "evaluation": (13_180, 659)}


def omniglot(root: str) -> Manifest:
    """Read Omniglot: 1,623 characters of 50 alphabets, 20 drawings each; a class is a character.

    The layout is `images_background/ALPHABET/CHARACTER/FILE.png` and `images_evaluation/...`, or
    the same without `images_`; root is the folder that holds both. The splits `background` and
    `evaluation` also go by `train` and `test`.
    """
    official = os.path.isdir(os.path.join(root, "images_background"))
    folders = {split: f"images_{split}" if official else split for split in COUNTS}
    for folder in folders.values():
        _official.find_folder(root, ("",), folder)
    root = os.path.abspath(root)
    images = {split: find_images(os.path.join(root, folder)) for split, folder in folders.items()}
    inside = [name.decode() for names, _ in images.values() for name in names.tolist()]
    characters = [name.rpartition("/")[0] for name in inside]
    number = {name: label for label, name in enumerate(dict.fromkeys(characters))}
    split = np.repeat(
        [key.encode() for key in images], [len(names) for names, _ in images.values()]
    )
    manifest = Manifest(
        names=StringArray.from_texts(
            f"{folders[key.decode()]}/{name}" for key, name in zip(split, inside, strict=True)
        ).to_array(),
        paths=StringArray.join([paths for _, paths in images.values()]),
        labels=np.array([number[name] for name in characters]),
        label_names=tuple(number),
        columns={
            "split": split,
            "alphabet": np.array([name.partition("/")[0].encode() for name in inside]),
        },
        root=root,
    )
    return _official.check_counts(manifest, COUNTS, "Omniglot")
