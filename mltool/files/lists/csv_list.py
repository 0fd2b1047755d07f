"""Image lists as CSV: `path`, and where known `name`, `label`, `split` and further columns."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mltool.errors import InputError, escape
from mltool.files import atomic, locations
from mltool.files._columns import from_text, to_text
from mltool.files.history import Record, write_sidecar
from mltool.files.labels import number_labels
from mltool.files.manifest import Manifest
from mltool.files.names import BLOCK, StringArray, check_unique, utf8_name
from mltool.files.reading import open_input

logger = logging.getLogger(__name__)

KEYS = ("path", "name", "label")
LONGEST_CELL = 4096  # bytes; a column is one array as wide as its longest cell
LOCATION = (
    " location"  # key of the resolved paths; headers are stripped, so none begins with a space
)
NOT_UTF8 = "is not UTF-8; save the list as UTF-8"

Cells = tuple[dict[str, StringArray], np.ndarray]  # columns; line number of each row, int64 [N]


def read_csv(path: str | os.PathLike[str]) -> Manifest:
    """Read an image list. Paths are relative to its folder; a name is the path unless given.

    A column of `_columns.KNOWN` has its type; in others whole and decimal numbers are recognised.
    Raises InputError naming the line of what does not fit.
    """
    path = os.fspath(path)
    source = escape(path)
    columns, lines = _parse(path, source)
    names = columns["name"].to_array()
    check_unique(names, source)
    texts = columns["label"].to_array() if "label" in columns else np.zeros(len(names), "S1")
    labels, label_names = number_labels(texts)
    paths = columns[LOCATION]
    further = {
        key: from_text(key, cells.to_array(), lambda row: f"{source} line {lines[row]}")
        for key, cells in columns.items()
        if key not in (*KEYS, LOCATION)
    }
    root = locations.root_of(names, paths)
    return Manifest(names, paths, labels, label_names, further, root)


def write_csv(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    columns: Mapping[str, np.ndarray] | None = None,
    history: Iterable[Record] = (),
) -> None:
    """Write an image list, whose paths are relative to its folder, and its history beside it.

    `columns` [N] come after the manifest's own and take the place of equal ones. Raises
    ResourceError.
    """
    labels = (*manifest.label_names, "")  # -1 picks the last
    further = manifest.columns | dict(columns or {})
    cells: list[Iterable[str]] = [
        locations.to_texts(manifest.paths, os.path.dirname(os.path.abspath(path))),
        (name.decode() for name in manifest.names.tolist()),
        (labels[label] for label in manifest.labels.tolist()),
        *(to_text(column) for column in further.values()),
    ]
    with atomic.open_output(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(_UnixLines(text), lineterminator="\r\n")
        writer.writerow([*KEYS, *further])
        writer.writerows(zip(*cells, strict=True))
        text.detach()
    write_sidecar(path, history)


class _UnixLines:
    """Ends lines in a line feed alone.

    csv quotes carriage returns and line feeds only if its line terminator holds both.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def write(self, line: str) -> None:
        self._text.write(line.removesuffix("\r\n") + "\n")


def _parse(path: str, source: str) -> Cells:
    folder = os.path.dirname(os.path.abspath(path))
    with open_input(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, strict=True)  # else an open quote swallows the rest
        try:
            header = _header(next(reader, []), source)
            columns: dict[str, list[StringArray]] = {key: [] for key in (*header, LOCATION, "name")}
            del columns["path"]
            numbers = [np.zeros(0, np.int64)]
            for rows, lines in _blocks(reader, len(header), source):
                block = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
                for key, cells in block.items():
                    _check(key, cells, folder, source, lines)
                _name(block, folder, source, lines)
                for key, cells in block.items():
                    columns[key].append(StringArray.from_texts(cells))
                numbers.append(np.array(lines))
        except csv.Error as error:
            raise InputError(f"{source} line {reader.line_num}: {error}; correct it") from error
    if len(numbers) == 1:
        raise InputError(f"{source} lists no images; it has a header only")
    kept = {
        key: StringArray.join(column)
        for key, column in columns.items()
        if _can_be_kept(key, source)
    }
    return kept, np.concatenate(numbers)


def _header(cells: Sequence[str], source: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    shown = escape(", ".join(header)) or "nothing"
    if "path" not in header:
        raise InputError(
            f"{source} has no column `path` in its first line, which holds {shown[:200]}; "
            "an image list is a comma-separated, UTF-8 text with a header"
        )
    if len(set(header)) < len(header):
        raise InputError(f"{source} names a column twice ({shown[:200]}); rename one")
    return header


def _can_be_kept(key: str, source: str) -> bool:
    if key and "/" not in key and key not in (".", "..") and key.isprintable():
        return True
    logger.warning("%s: column %r is left out, it cannot be a column's name", source, key)
    return False


def _blocks(
    reader: Iterator[list[str]], width: int, source: str
) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Yield blocks of rows, and the number of the last line of each row."""
    rows: list[list[str]] = []
    lines: list[int] = []
    for row in reader:
        line = reader.line_num  # type: ignore[attr-defined]
        if not row:
            continue
        if len(row) != width:
            raise InputError(f"{source} line {line}: {len(row)} cells, but the header has {width}")
        rows.append(row)
        lines.append(line)
        if len(rows) == BLOCK:
            yield rows, lines
            rows, lines = [], []
    if rows:
        yield rows, lines


def _check(key: str, cells: list[str], folder: str, source: str, lines: list[int]) -> None:
    """Raise InputError naming the line of a cell that cannot be kept."""
    joined = "".join(cells)
    if joined.isascii() and "\0" not in joined and max(map(len, cells)) <= LONGEST_CELL:
        return  # the usual case, decided for the whole column at once
    for cell, line in zip(cells, lines, strict=True):
        problem = _problem(cell)
        if problem == NOT_UTF8 and key == "path" and os.path.lexists(os.path.join(folder, cell)):
            continue
        if problem:
            raise InputError(f"{source} line {line}: {key} {problem}")


def _problem(cell: str) -> str:
    if "\0" in cell:
        return "holds a NUL byte, which no text has"
    if len(os.fsencode(cell)) > LONGEST_CELL:
        return f"holds more than {LONGEST_CELL:,} bytes; shorten it or drop the column"
    try:
        cell.encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    return ""


def _name(cells: dict[str, list[str]], folder: str, source: str, lines: list[int]) -> None:
    """Replace column `path` by the locations, and fill in missing names."""
    texts = cells.pop("path")
    if "" in texts:
        raise InputError(f"{source} line {lines[texts.index('')]}: the path is empty")
    try:
        cells[LOCATION] = locations.resolve(texts, folder)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    names = cells.get("name", [""] * len(texts))
    cells["name"] = [
        name or _default_name(text, location)
        for name, text, location in zip(names, texts, cells[LOCATION], strict=True)
    ]


def _default_name(text: str, location: str) -> str:
    if "\0" in location:
        return locations.member_of(text)
    return text if text.isascii() else utf8_name(os.fsencode(text)).decode()
