"""Search results: names and scores of each query's nearest rows, in four forms."""

import os
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError, escape
from mltool.files import atomic, safe_h5, sealed
from mltool.files._arrays import narrow
from mltool.files.history import History, to_rows, write_sidecar
from mltool.files.sealed import Attribute, Field

FORMAT = "mltool-hits"
FORMAT_VERSION = 1
TAG = "mltool"
FIELDS = {
    "query_names": Field("S"),
    "names": Field("S", ndim=2),
    "scores": Field("f", ndim=2),
    "history": Field("S"),
}


@dataclass(frozen=True, eq=False)
class Hits:
    """The nearest gallery rows of every query, best first; empty names fill short rows."""

    query_names: np.ndarray  # [Q] 'S'
    names: np.ndarray  # [Q, k] 'S'
    scores: np.ndarray  # [Q, k] float64, larger = closer, -inf for an empty name

    @classmethod
    def from_rows(
        cls, query_names: np.ndarray, names: np.ndarray, rows: np.ndarray, scores: np.ndarray
    ) -> "Hits":
        """Make hits of gallery `rows` [Q, k] (-1 = none), whose names are in `names` [N]."""
        # row -1 picks the empty name at the end
        padded = np.append(names, np.array([b""], names.dtype)) if len(names) else np.array([b""])
        return cls(query_names, padded[rows], np.where(rows >= 0, scores, -np.inf))

    def drop_below(self, score: float) -> "Hits":
        """Return the hits without those below `score`."""
        kept = self.scores >= score
        names = np.where(kept, self.names, np.array(b"", self.names.dtype))
        return Hits(self.query_names, names, np.where(kept, self.scores, -np.inf))

    def rows(self) -> Iterator[tuple[str, int, str, float]]:
        """Yield (query, rank from 1, name, score) of every hit."""
        for query, names, scores in zip(self.query_names, self.names, self.scores, strict=True):
            for rank, (name, score) in enumerate(zip(names.tolist(), scores, strict=True), 1):
                if name:
                    yield query.decode(), rank, name.decode(), float(score)


def as_text(hits: Hits, most: int = 20) -> str:
    """Return a table for a terminal: the hits of the first queries, names escaped."""
    lines = []
    for number, query in enumerate(hits.query_names[:most].tolist()):
        lines.append(escape(query.decode()))
        one = Hits(hits.query_names[number : number + 1], *_row(hits, number))
        shown = [f"{rank:>5}  {score:8.4f}  {escape(name)}" for _, rank, name, score in one.rows()]
        lines += shown or ["       (none)"]
    if len(hits.query_names) > most:
        lines.append(f"... and {len(hits.query_names) - most:,} queries more; -o FILE keeps all")
    return "\n".join(lines)


def as_tsv(hits: Hits) -> Iterator[str]:
    """Yield a header and one line a hit: query, rank, name, score."""
    yield "query\trank\tname\tscore"
    for query, rank, name, score in hits.rows():
        yield f"{_field(query)}\t{rank}\t{_field(name)}\t{score:.9g}"


def as_run(hits: Hits) -> Iterator[str]:
    """Yield a TREC run: query Q0 document rank score tag; spaces in names are percent-encoded.

    trec_eval orders by score alone and prints what it reads; scores have 17 digits.
    """
    for query, rank, name, score in hits.rows():
        yield f"{_token(query)} Q0 {_token(name)} {rank} {score!r} {TAG}"


def write(path: str | os.PathLike[str], hits: Hits, history: History) -> None:
    """Write `.tsv`, `.run` (with their history beside) or HDF5, whole or not at all.

    Raises ResourceError.
    """
    kind = os.path.splitext(os.fspath(path))[1].lower()
    if kind in (".tsv", ".run", ".txt"):
        lines = as_tsv(hits) if kind == ".tsv" else as_run(hits)
        with atomic.open_output(path) as file:
            file.writelines(f"{line}\n".encode() for line in lines)
        write_sidecar(path, history)
        return
    arrays = {
        "query_names": narrow(hits.query_names),
        "names": narrow(hits.names),
        "scores": narrow(hits.scores),
        "history": narrow(to_rows(history)),
    }
    attributes: dict[str, Attribute] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    attributes["digest"] = _digest(arrays)
    atomic.write(path, sealed.to_bytes(arrays, attributes))


def read(path: str | os.PathLike[str]) -> Hits:
    """Read an HDF5 file of hits, proven undamaged.

    Raises InputError for a file that is missing, damaged, hostile, foreign or newer.
    """
    with safe_h5.open_file(path) as file:
        safe_h5.check_format(file, FORMAT, FORMAT_VERSION)
        arrays = sealed.read_arrays(file, FIELDS)
        digest = safe_h5.read_attribute(file, "digest", "")
    shape = arrays["names"].shape
    fitting = arrays["scores"].shape == shape and len(arrays["query_names"]) == shape[0]
    if not fitting or digest != _digest(arrays):
        raise InputError(f"{path} is damaged: its content does not fit its digest; search again")
    return Hits(arrays["query_names"], arrays["names"], arrays["scores"])


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    return sealed.sha256(arrays, before=[FORMAT, FORMAT_VERSION]).hex()


def _row(hits: Hits, number: int) -> tuple[np.ndarray, np.ndarray]:
    return hits.names[number : number + 1], hits.scores[number : number + 1]


def _field(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _token(text: str) -> str:
    return urllib.parse.quote(text, safe="/:,;@+=!~*'()&$[]#")
