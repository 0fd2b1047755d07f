"""Krause, Stark, Deng, Fei-Fei: 3D Object Representations for Fine-Grained ... (2013)."""

import csv
import io
import os

import numpy as np

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files.manifest import Manifest
from mltool.files.reading import open_input

COUNTS = {"train": (8_054, 98), "test": (8_131, 98)}
ANNOTATIONS, NAMES = "cars_annos.mat", "names.csv"
_LARGEST_MAT = 2**23  # bytes; the official one has less than a tenth

Listed = tuple[str, list[str], list[int], dict[int, str]]  # folder, names, class ids, class names


def cars196(root: str) -> Manifest:
    """Read Cars-196: 16,185 images of 196 models; the first 98 classes train, the others test.

    The layout is `cars_annos.mat` with `car_ims/FILE.jpg`, or the re-packed one: `names.csv`,
    `anno_train.csv`, `anno_test.csv` with `car_data/car_data/{train,test}/CLASS/FILE.jpg`; root
    holds these or is the folder above. The official train and test set is for classification.
    """
    tops = ("", "cars196")
    repacked = any(os.path.exists(os.path.join(root, top, NAMES)) for top in tops)
    folder = _official.find_folder(root, tops, NAMES if repacked else ANNOTATIONS)
    images, names, classes, class_names = (
        _read_repacked(folder) if repacked else _read_official(folder)
    )
    last = sorted(class_names)[: COUNTS["train"][1]][-1:]
    split = [b"train" if last and number <= last[0] else b"test" for number in classes]
    manifest = _official.build_manifest(images, names, classes, class_names, {"split": split})
    return _official.check_counts(manifest, COUNTS, "Cars-196")


def _read_official(folder: str) -> Listed:
    path = os.path.join(folder, ANNOTATIONS)
    with open_input(path) as file:
        data = file.read(_LARGEST_MAT + 1)
    if len(data) > _LARGEST_MAT:
        raise InputError(f"{escape(path)} is larger than {_LARGEST_MAT:,} bytes; copy it again")
    from scipy.io import loadmat  # 0.3 s, for this benchmark only

    try:
        # plain arrays only come of these: loadmat runs no code and makes no MATLAB objects
        content = loadmat(io.BytesIO(data), variable_names=["annotations", "class_names"])
        rows = np.ravel(content["annotations"])
        names = [str(np.ravel(name)[0]) for name in rows["relative_im_path"]]
        classes = [int(np.ravel(number)[0]) for number in rows["class"]]
        texts = [str(np.ravel(name)[0]) for name in np.ravel(content["class_names"])]
    except Exception as error:  # the parser meets bytes of unknown origin
        reason = escape(str(error)) or type(error).__name__
        raise InputError(f"{escape(path)} is damaged ({reason}); copy it again") from error
    return folder, names, classes, dict(enumerate(texts, start=1))


def _read_repacked(folder: str) -> Listed:
    rows = _read_csv(os.path.join(folder, NAMES))
    class_names = {number: ",".join(row) for number, row in enumerate(rows, start=1)}
    names: list[str] = []
    classes: list[int] = []
    for split in ("train", "test"):
        path = os.path.join(folder, f"anno_{split}.csv")
        for row in _read_csv(path):
            number = _official.parse_number(row[-1], path)
            if number not in class_names:
                raise InputError(f"{escape(path)}: there is no class {number} in {NAMES}")
            # file numbers start again in each split, so the split belongs to the name
            names.append(f"{split}/{class_names[number].replace('/', '-')}/{row[0]}")
            classes.append(number)
    return os.path.join(folder, "car_data", "car_data"), names, classes, class_names


def _read_csv(path: str) -> list[list[str]]:
    with open_input(path) as file:
        data = file.read()
    try:
        return [row for row in csv.reader(data.decode("utf-8-sig").splitlines()) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{escape(path)} is damaged ({error}); copy it again") from error
