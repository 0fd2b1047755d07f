"""Han et al.: Automatic Spatially-aware Fashion Concept Discovery (2017)."""

import os

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files.manifest import Manifest

COUNTS = {"train": 172_049, "test": 29_789}
_KINDS = ("dress", "jacket", "pants", "skirt", "top")


def fashion200k(root: str) -> Manifest:
    """Read Fashion200k: 201,838 crops of clothes; a class is a product.

    The layout is `labels/KIND_{train,test}_detect_all.txt` (path, detection score, description;
    KIND is dress, jacket, pants, skirt or top) and the images as listed,
    `women/FOLDER/STYLE/PRODUCT/PRODUCT_N.jpeg`, below the root or its `fashion200k`. The official
    split is one of images. No official number of products is known, so the numbers of images alone
    are checked. The columns are `kind` and `style`.
    """
    folder = _official.find_folder(root, ("", "fashion200k", "fashion-200k"), "labels")
    names: list[str] = []
    columns: dict[str, list[bytes]] = {"split": [], "kind": [], "style": []}
    for split, expected in COUNTS.items():
        before = len(names)
        for kind in _KINDS:
            path = os.path.join(folder, "labels", f"{kind}_{split}_detect_all.txt")
            listed = [row[0] for row in _official.read_rows(path, fields=2)]
            names += listed
            columns["split"] += [split.encode()] * len(listed)
            columns["kind"] += [kind.encode()] * len(listed)
        if len(names) - before != expected:
            raise InputError(
                f"{escape(folder)}: the {split} split of Fashion200k has {expected:,} images, but "
                f"here are {len(names) - before:,}; copy the labels again"
            )
    products = [os.path.basename(os.path.dirname(name)) for name in names]
    styles = [os.path.basename(os.path.dirname(os.path.dirname(name))) for name in names]
    columns["style"] = [style.encode() for style in styles]
    number = {product: label for label, product in enumerate(dict.fromkeys(products))}
    return _official.build_manifest(
        folder,
        names,
        [number[product] for product in products],
        {label: product for product, label in number.items()},
        columns,
    )
