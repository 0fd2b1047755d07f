"""scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998), 8 x 8 grey pixels."""

import numpy as np

from mltool.files.digits import location, name, pixels_and_labels
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray


def digits(root: str = "") -> Manifest:
    """Read the digits, which need no folder. Split `train` is the digits 0 to 4, `test` 5 to 9.

    Names are `digits/LABEL/ROW`, with the row in scikit-learn's order.
    """
    _, labels = pixels_and_labels()
    names = StringArray.from_texts(name(row) for row in range(len(labels))).to_array()
    return Manifest(
        names=names,
        paths=StringArray.from_texts(location(row) for row in range(len(labels))),
        labels=labels,
        label_names=tuple(str(digit) for digit in range(10)),
        columns={"split": np.where(labels < 5, b"train", b"test")},
        root="",
    )
