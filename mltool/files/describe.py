"""Facts about a file, for people and scripts, without reading its matrix or images."""

import os
from collections import Counter
from pathlib import Path

from mltool.errors import InputError
from mltool.files import embeddings, safe_h5, safetensors_file
from mltool.files.lists import image_lists
from mltool.files.reading import open_input

Facts = dict[str, object]


def read_facts(path: str) -> Facts:
    """Read kind, counts and origin of a file that mltool wrote or can read. Raises InputError."""
    if os.path.isdir(path):
        return _image_list(path)
    with open_input(path) as file:
        start = file.read(16)
    if start.startswith(safe_h5.SIGNATURE):
        return _hdf5(path)
    if safetensors_file.is_safetensors(start):
        return _checkpoint(path)
    return _image_list(path)


def _checkpoint(path: str) -> Facts:
    meta = safetensors_file.read_meta(path)
    size = Path(path).stat().st_size
    if "partial_version" in meta:
        return {"kind": "running state of a training run", "bytes": size, **_flat(meta, "counters")}
    if "spec" not in meta:
        return {"kind": "safetensors without an mltool model", "bytes": size}
    classes = meta.get("classes")
    return {
        "kind": "checkpoint",
        "bytes": size,
        **_flat(meta, "spec"),
        **_flat(meta, "cost"),
        "classes": len(classes) if isinstance(classes, list) else 0,
        **_describe_run(meta.get("run")),
        "digest": meta.get("digest", ""),
    }


def _describe_run(facts: object) -> Facts:
    """Describe what `--save-optimizer` kept, nothing where it was not asked for."""
    if not isinstance(facts, dict):
        return {}
    return {"optimizer": f"{facts.get('optimizer')}, after epoch {facts.get('epoch')}"}


def _flat(meta: safetensors_file.Meta, key: str) -> Facts:
    value = meta.get(key)
    return dict(value) if isinstance(value, dict) else {}


def _hdf5(path: str) -> Facts:
    with safe_h5.open_file(path) as file:
        kind = safe_h5.read_attribute(file, "format", "")
        digest = safe_h5.read_attribute(file, "digest", "")
    size = Path(path).stat().st_size
    if kind == embeddings.FORMAT:
        header = embeddings.read_header(path)
        labelled = header.labels[header.labels >= 0]
        return {
            "kind": "embeddings",
            "bytes": size,
            "images": len(header),
            "views": header.views,
            "dim": header.vectors.shape[1] // header.views,
            **({"parts": [list(bounds) for bounds in header.parts]} if header.parts else {}),
            "dtype": str(header.vectors.dtype),
            "metric": header.metric,
            "normalized": header.normalized,
            "classes": len(set(labelled.tolist())),
            "unlabelled": len(header) - len(labelled),
            "columns": sorted(header.columns),
            "space": header.space,
            "teacher_space": header.teacher_space,
            "preprocess": header.preprocess,
            "digest": digest,
        }
    if kind == "mltool-pack":
        return {"kind": "pack", "bytes": size, **_summary(path), "digest": digest}
    if kind.startswith("mltool-"):
        return {"kind": kind.removeprefix("mltool-"), "bytes": size, "digest": digest}
    raise InputError(f"{path}: an HDF5 file, but not one of mltool; see `convert`")


def _image_list(path: str) -> Facts:
    return {"kind": "image list", **_summary(path)}


def _summary(path: str) -> Facts:
    manifest = image_lists.read(path)
    splits = manifest.columns.get("split")
    counted = Counter(value.decode() for value in splits.tolist()) if splits is not None else {}
    return {
        **vars(manifest.summary()),
        "columns": sorted(manifest.columns),
        **{f"split {name or '(none)'}": count for name, count in sorted(counted.items())},
    }
