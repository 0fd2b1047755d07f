"""The ground truth of the revisited Oxford and Paris benchmarks, as it is distributed.

Radenovic, Iscen, Tolias, Avrithis, Chum: Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking (2018). A pickle, or JSON of the same fields: `imlist` and `qimlist` name the gallery's
and the queries' images without suffix, and `gnd` holds for each query its crop box `bbx` and the
rows of `imlist`, from 0, that are `easy`, `hard` and `junk`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from mltool.errors import InputError, escape
from mltool.files import canonical_json, safe_pickle
from mltool.files.lists.folder import SUFFIXES
from mltool.files.names import StringArray, check_unique
from mltool.files.reading import open_input

KINDS = ("easy", "hard", "junk")
LARGEST = 2.0**31  # no image has a side of so many pixels

Answer = Mapping[str, np.ndarray]  # for each of KINDS rows of the gallery, int64; no row in two


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Which gallery images show the landmark of which query; all others do not."""

    queries: np.ndarray  # [Q] 'S', stems of the queries' images
    gallery: np.ndarray  # [N] 'S', stems of the gallery's images
    boxes: np.ndarray  # [Q, 4] float64 x_1, y_1, x_2, y_2 of the queries, NaN if not in the file
    answers: tuple[Answer, ...]  # to each query


def read(path: str) -> GroundTruth:
    """Read the ground truth in a `.json` file, else in a pickle, without running the pickle.

    Raises InputError for a file that is missing, damaged, hostile or holds something else.
    """
    source = escape(path)
    value = _json(path) if path.lower().endswith(".json") else safe_pickle.read(path)
    fields = _fields(value, ("imlist", "qimlist", "gnd"), source)
    queries = _stems(fields["qimlist"], f"{source}: qimlist")
    gallery = _stems(fields["imlist"], f"{source}: imlist")
    answers = _items(fields["gnd"], f"{source}: gnd")
    if len(answers) != len(queries):
        raise InputError(
            f"{source}: gnd tells of {len(answers):,} queries, but qimlist names {len(queries):,}"
        )
    boxes = np.full((len(queries), 4), np.nan)
    answers_by_kind = []
    for number, answer in enumerate(answers):
        where = f"{source}: gnd of query {number}"
        answer_fields = _fields(answer, KINDS, where)
        answers_by_kind.append(
            {kind: _rows(answer_fields[kind], len(gallery), f"{where}: {kind}") for kind in KINDS}
        )
        judged = np.concatenate(list(answers_by_kind[-1].values()))
        if len(np.unique(judged)) < len(judged):
            raise InputError(f"{where}: an image stands more than once in {', '.join(KINDS)}")
        if "bbx" in answer_fields:
            boxes[number] = _box(answer_fields["bbx"], where)
    return GroundTruth(queries, gallery, boxes, tuple(answers_by_kind))


def stem(name: bytes) -> bytes:
    """Return the name of a file without folders and without the suffix of an image."""
    base = name.rpartition(b"/")[2]
    ending = next((end for end in SUFFIXES if base.lower().endswith(end)), b"")
    return base[: len(base) - len(ending)]


def _json(path: str) -> object:
    with open_input(path) as file:
        data = file.read()
    try:
        return canonical_json.from_json(data)
    except ValueError as error:
        reason = escape(str(error))
        raise InputError(f"{escape(path)} is no JSON ({reason}); mend it") from error


def _fields(value: object, keys: tuple[str, ...], source: str) -> Mapping[str, object]:
    lacking = [key for key in keys if key not in value] if isinstance(value, dict) else list(keys)
    if lacking:
        raise InputError(
            f"{source} lacks {', '.join(lacking)}; is it a ground truth of the revisited protocol?"
        )
    return cast(Mapping[str, object], value)


def _items(value: object, source: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{source} is no list; fetch it again")
    return list(value)


def _stems(value: object, source: str) -> np.ndarray:
    names = _items(value, source)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{source} is no list of names; fetch it again")
    texts = [cast(str, name).encode(errors="replace") for name in names]
    stems = StringArray.from_texts(map(stem, texts)).to_array()
    check_unique(stems, source)
    return stems


def _rows(value: object, count: int, source: str) -> np.ndarray:
    rows = _items(value, source)
    whole = (isinstance(row, int) and not isinstance(row, bool) for row in rows)
    if not all(whole) or not all(0 <= cast(int, row) < count for row in rows):
        raise InputError(
            f"{source} holds something else than rows of imlist, from 0 to {count - 1:,}"
        )
    return np.array(rows, np.int64)


def _box(value: object, source: str) -> list[float]:
    box = _items(value, f"{source}: bbx")
    sides = [side for side in box if isinstance(side, int | float) and abs(side) < LARGEST]
    if len(box) != 4 or len(sides) != 4:
        raise InputError(f"{source}: bbx is not the four numbers x_1, y_1, x_2, y_2")
    return [float(side) for side in sides]
