"""Radenovic, Iscen, Tolias, Avrithis, Chum: Revisiting Oxford and Paris ... (2018)."""

from mltool.datasets._revisited import read_revisited
from mltool.files.manifest import Manifest

COUNTS = {"query": 70, "gallery": 6_322}


def rparis6k(root: str) -> Manifest:
    """Read revisited Paris: 70 queries, to be cropped to their boxes, and 6,322 gallery images.

    The layout is `gnd_rparis6k.pkl` and images `jpg/NAME.jpg`; root is that folder or the one
    above. No image has a class: `evaluate --protocol revisited` takes the answers from the pickle.
    """
    return read_revisited(root, "rparis6k", "revisited Paris", COUNTS)
