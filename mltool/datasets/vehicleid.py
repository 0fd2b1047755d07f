"""Liu, Tian, Yang, Pang, Huang: Deep Relative Distance Learning: Tell the Difference ... (2016)."""

import os

import numpy as np

from mltool.datasets import _official
from mltool.files.lists.selection import SPLIT_PREFIX
from mltool.files.manifest import Manifest

# Papers give other numbers of test images, from 6,493 to 7,332 of the smallest list.
COUNTS = {
    "train": (113_346, 13_164),
    "test-800": (None, 800),
    "test-1600": (None, 1_600),
    "test-2400": (None, 2_400),
}
_LISTS = "train_test_split"


def vehicleid(root: str) -> Manifest:
    """Read PKU VehicleID: cars from behind and in front, by vehicle; three test lists of its sizes.

    The layout is `train_test_split/{train_list,test_list_800,test_list_1600,test_list_2400}.txt`
    (image, vehicle) and `image/IMAGE.jpg`; root is that folder or the one above. The test lists may
    share images: they are the splits `test-800`, `test-1600` and `test-2400`, and together `test`.
    Images in no list are left out.
    """
    folder = _official.find_folder(root, ("", "VehicleID_V1.0", "VehicleID"), _LISTS)
    vehicles: dict[str, int] = {}
    members: dict[str, set[str]] = {}
    for split in COUNTS:
        kind, _, size = split.partition("-")
        path = os.path.join(folder, _LISTS, f"{kind}_list{size and '_'}{size}.txt")
        rows = _official.read_rows(path, fields=2)
        images = {name: _official.parse_number(vehicle, path) for name, vehicle in rows}
        _official.check_agreement(images, vehicles, path)
        vehicles |= images
        members[split] = set(images)
    names, ids = list(vehicles), list(vehicles.values())
    inside = {
        split: np.array([name in of for name in names]).astype(np.int64)
        for split, of in members.items()
    }
    columns = {f"{SPLIT_PREFIX}{split}": mask for split, mask in inside.items() if split != "train"}
    columns["split"] = np.where(inside["train"], b"train", b"test")
    manifest = _official.build_manifest(
        os.path.join(folder, "image"),
        (f"{name}.jpg" for name in names),
        ids,
        {number: str(number) for number in set(ids)},
        columns,
    )
    return _official.check_counts(manifest, COUNTS, "VehicleID")
