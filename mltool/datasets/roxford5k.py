"""Radenovic, Iscen, Tolias, Avrithis, Chum: Revisiting Oxford and Paris ... (2018)."""

from mltool.datasets._revisited import read_revisited
from mltool.files.manifest import Manifest

COUNTS = {"query": 70, "gallery": 4_993}


def roxford5k(root: str) -> Manifest:
    """Read revisited Oxford: 70 queries, to be cropped to their boxes, and 4,993 gallery images.

    The layout is `gnd_roxford5k.pkl` and images `jpg/NAME.jpg`; root is that folder or the one
    above. No image has a class: `evaluate --protocol revisited` takes the answers from the pickle.
    """
    return read_revisited(root, "roxford5k", "revisited Oxford", COUNTS)
