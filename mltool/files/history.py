"""Provenance: which steps, with which inputs and settings, made a file.

A history is a tuple of records, one a step, and each step follows the steps that made its inputs.
A record holds what decides the result and nothing else: no output name, folder, host, time or
run-time option. The same work thus gives the same bytes on any machine.
"""

import hashlib
import logging
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from mltool import __version__
from mltool.errors import InputError
from mltool.files import atomic, canonical_json, safe_h5, safetensors_file
from mltool.files.reading import open_input

logger = logging.getLogger(__name__)

SIDECAR = ".history.json"
SIDECAR_FORMAT = "mltool-history"
SIDECAR_VERSION = 1
LONGEST_SIDECAR = 2**28  # bytes

Record = dict[str, object]
History = tuple[Record, ...]
Unwritten = Callable[[str, Mapping[str, object]], dict[str, object]]


def record(
    command: str,
    *,
    inputs: Sequence[tuple[str, str, str]],
    settings: Mapping[str, object],
    counts: Mapping[str, int],
    libraries: Mapping[str, str] | None = None,
) -> Record:
    """Return one step. `inputs` are (option, path, digest); positional options have no dashes.

    Of a path only the base name stays. Where the input carries a history, its last step is noted
    as `made_by`, so that a chain of steps can be told from its pieces. `libraries` are the versions
    of packages that decide the last bits of the result, and absent without any.
    """
    versions = {"libraries": dict(libraries)} if libraries else {}
    return {
        "program": "mltool",
        "version": __version__,
        "command": command,
        "inputs": [_input(option, path, digest) for option, path, digest in inputs],
        "settings": dict(settings),
        "counts": dict(counts),
        **versions,
    }


def merge(*histories: Iterable[Record]) -> History:
    """Join histories: each step stands once, after the steps that made its inputs."""
    steps: dict[str, Record] = {}
    for history in histories:
        for step in history:
            steps.setdefault(canonical_json.digest(step), step)
    return tuple(steps.values())


def extend(*histories: Iterable[Record], record: Record) -> History:
    """Join the histories of the inputs and append `record`."""
    return merge(*histories, [record])


def read(path: str | os.PathLike[str]) -> History:
    """Read the history in an mltool file or beside a text, () if there is none.

    Raises InputError if the file cannot be read.
    """
    start = _start(path)
    if start.startswith(safe_h5.SIGNATURE):
        with safe_h5.open_file(path) as file:
            return from_h5(file)
    if safetensors_file.is_safetensors(start):
        return check(safetensors_file.read_meta(path).get("history", []), path)
    return read_sidecar(path)


def read_all(texts: Iterable[str | None]) -> list[History]:
    """Read the histories of all texts that are files; folders and benchmarks have none."""
    return [read(text) for text in texts if text and os.path.isfile(text)]


def list_inputs(option: str, texts: Iterable[str], digest: str) -> list[tuple[str, str, str]]:
    """Return image lists as inputs of a record: HDF5 files by their digest, others by `digest`."""
    return [(option, text, digest_of_file(text) if _is_h5_file(text) else digest) for text in texts]


def _is_h5_file(text: str) -> bool:
    return os.path.isfile(text) and safe_h5.is_hdf5(text)


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """Return the digest in an mltool file, else the sha256 of the bytes. Raises InputError."""
    start, stored = _start(path), ""
    if start.startswith(safe_h5.SIGNATURE):
        with safe_h5.open_file(path) as file:
            if safe_h5.read_attribute(file, "format", "").startswith("mltool-"):
                stored = safe_h5.read_attribute(file, "digest", "")
    elif safetensors_file.is_safetensors(start):
        stored = str(safetensors_file.read_meta(path).get("digest", ""))
    return stored or _sha256(path)


def write_sidecar(path: str | os.PathLike[str], history: Iterable[Record]) -> None:
    """Write `<path>.history.json` for the present text in `path`. Raises ResourceError."""
    content = {
        "format": SIDECAR_FORMAT,
        "format_version": SIDECAR_VERSION,
        "sha256": _sha256(path),
        "history": list(history),
    }
    atomic.write(sidecar(path), canonical_json.to_json(content).encode() + b"\n")


def read_sidecar(path: str | os.PathLike[str]) -> History:
    """Read the history beside the text file `path`, () if there is none.

    Warns if the text was edited since the history was written. Raises InputError.
    """
    beside = sidecar(path)
    if not beside.exists():
        return ()
    if is_edited(path):
        logger.warning("%s was edited since mltool wrote it", path)
    return check(_read_beside(beside).get("history"), beside)


def is_edited(path: str | os.PathLike[str]) -> bool:
    """Return whether the text in `path` differs from the one its sidecar describes.

    Raises InputError.
    """
    return _read_beside(sidecar(path)).get("sha256") != _sha256(path)


def sidecar(path: str | os.PathLike[str]) -> Path:
    """Return the path of the history of the text file `path`."""
    return Path(os.fspath(path) + SIDECAR)


def to_rows(history: Iterable[Record]) -> np.ndarray:
    """Return the history as dataset `/history` of an HDF5 file: a JSON text a step, 'S' [steps].

    An attribute would end at 64 KB, or have a variable length, which is not safe to read.
    """
    return np.array([canonical_json.to_json(step).encode() for step in history], "S")


def from_h5(file: h5py.File) -> History:
    """Read the history in an HDF5 file, () if there is none. Raises InputError."""
    if not safe_h5.has_object(file, "history"):
        return ()
    rows = safe_h5.read_dataset(file, "history", ndim=1, kinds="S").tolist()
    try:
        return check([canonical_json.from_json(row) for row in rows], file.filename)
    except ValueError as error:
        raise InputError(
            f"the history in {file.filename} is damaged ({error}); make it again"
        ) from error


def check(steps: object, path: str | os.PathLike[str]) -> History:
    """Return `steps`, parsed from file `path`, as a history. Raises InputError if they are none."""
    if not isinstance(steps, list) or not all(_is_record(step) for step in steps):
        raise InputError(f"the history in {path} is not a list of steps; make the file again")
    return tuple(steps)


def shell_lines(
    history: Iterable[Record], output: str = "OUTPUT", *, unwritten: Unwritten | None = None
) -> list[str]:
    """Return the commands that made a file, one a step; the last one writes to `output`.

    `unwritten` maps a command and its recorded settings to those that it leaves unsaid, although
    the command would now do otherwise.
    """
    steps = list(history)
    names = {
        str(item["made_by"]): str(item["name"])
        for step in steps
        for item in inputs_of(step)
        if "made_by" in item
    }
    lines = []
    for number, step in enumerate(steps, start=1):
        last = number == len(steps)
        name = output if last else names.get(canonical_json.digest(step), f"STEP{number}")
        settings = step.get("settings")
        settings = settings if isinstance(settings, dict) else {}
        if unwritten is not None:
            settings = settings | unwritten(str(step["command"]), settings)
        lines.append(_shell_line(step, settings, name))
    return lines


def inputs_of(step: Record) -> list[Record]:
    """Return the inputs of a step, each with option, name and digest."""
    inputs = step.get("inputs")
    return [item for item in inputs if isinstance(item, dict)] if isinstance(inputs, list) else []


def _read_beside(beside: Path) -> Record:
    with open_input(beside) as file:
        text = file.read(min(LONGEST_SIDECAR, os.fstat(file.fileno()).st_size))
    try:
        content = canonical_json.from_json(text)
    except ValueError as error:
        raise InputError(f"{beside} is no history ({error}); delete it") from error
    if not isinstance(content, dict) or content.get("format") != SIDECAR_FORMAT:
        raise InputError(f"{beside} is no history of mltool; delete or rename it")
    version = content.get("format_version")
    if not isinstance(version, int) or version > SIDECAR_VERSION:
        raise InputError(f"{beside} was made by a newer mltool (format {version}); update mltool")
    return content


def _shell_line(step: Record, settings: Mapping[str, object], output: str) -> str:
    words = ["mltool", *str(step["command"]).split()]
    for item in inputs_of(step):
        option = str(item["option"])
        words += [option] if option.startswith("-") else []
        words.append(str(item["name"]))
    for key, value in sorted(settings.items()):
        words += _flag(key.replace("_", "-"), value)
    return shlex.join([*words, "-o", output])


def _flag(name: str, value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list | tuple):
        return [word for item in value for word in _flag(name, item)]
    text = value if isinstance(value, str) else canonical_json.to_json(value)
    return [f"--{name}", text]


def _input(option: str, path: str, digest: str) -> Record:
    # BENCHMARK:ROOT:SPLIT keeps its colons and loses its folders
    name = ":".join(os.path.basename(os.path.normpath(word)) for word in path.split(":"))
    item: Record = {"option": option, "name": name, "digest": digest}
    steps = read(path) if os.path.isfile(path) else ()
    return item | ({"made_by": canonical_json.digest(steps[-1])} if steps else {})


def _is_record(step: object) -> bool:
    return isinstance(step, dict) and isinstance(step.get("command"), str)


def _start(path: str | os.PathLike[str]) -> bytes:
    with open_input(path) as file:
        return file.read(16)


def _sha256(path: str | os.PathLike[str]) -> str:
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
