"""Translate the kinds of index into the texts of faiss's index factory."""

import math

from mltool.errors import UsageError

# Rows that `auto` searches exactly: at a million x 512 that takes 7 s for 1,000 queries, where an
# IVF index takes 50 s for a recall of 0.97 (recipes/bench/search.py).
EXACT_UP_TO = 1_000_000
LISTS_UP_TO = 10_000_000  # rows of which `auto` keeps the vectors whole
TRAINED_PER_LIST = 40  # rows; faiss warns below 39
SETTINGS = {"flat": (), "ivf": ("lists",), "hnsw": ("links",), "ivfpq": ("lists", "bytes")}


def choose_factory(kind: str, count: int, dim: int) -> str:
    """Return the faiss factory text of a kind for `count` vectors. Raises UsageError."""
    name, _, rest = kind.partition(":")
    if name == "auto":
        name = "flat" if count <= EXACT_UP_TO else "ivf" if count <= LISTS_UP_TO else "ivfpq"
    if name not in SETTINGS:
        return kind
    settings = _parse_settings(name, rest)
    lists = settings.get("lists", 2 ** max(0, round(math.log2(4 * math.sqrt(max(1, count))))))
    lists = max(1, min(lists, count if "lists" in settings else count // TRAINED_PER_LIST))
    if name == "ivfpq":
        width = settings.get("bytes", max(n for n in range(1, 65) if dim % n == 0))
        if dim % width:
            raise UsageError(f"bytes={width} does not divide the {dim} dimensions; choose another")
        return f"IVF{lists},PQ{width}x8"
    return {
        "flat": "Flat",
        "ivf": f"IVF{lists},Flat",
        "hnsw": f"HNSW{settings.get('links', 32)},Flat",
    }[name]


def _parse_settings(name: str, text: str) -> dict[str, int]:
    settings = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key not in SETTINGS[name] or not value.isdigit() or int(value) == 0:
            choices = ", ".join(f"{key}=N" for key in SETTINGS[name]) or "none"
            raise UsageError(f"index type {name} has no setting {item!r} (there are: {choices})")
        settings[key] = int(value)
    return settings
