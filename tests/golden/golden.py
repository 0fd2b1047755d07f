"""Run a set of commands on digits and keep digests of all they write, to compare two checkouts.

    python tests/golden/golden.py record golden.json    # with PYTHONPATH set to a checkout
    python tests/golden/golden.py compare golden.json   # the same commands, what differs

Every file has two digests: `file` of its bytes, and `content` of its tensors, vectors, names,
scores or text alone, which histories do not touch.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import h5py
import numpy as np
from safetensors import safe_open

TINY = [
    "--arch",
    "test_resnet",
    "--image-size",
    "16",
    "--resize",
    "16",
    "--dim",
    "8",
    "-j",
    "0",
    "--threads",
    "1",
    "-q",
    "--lr",
    "1e-3",
]
SHORT = [*TINY, "--epochs", "2", "-b", "32", "--images-per-class", "4"]
FREE = [*TINY, "--epochs", "2", "-b", "32"]
TRAIN, TEST = "digits:train", "digits:test"
FEW = ["--limit", "300"]


def train(name: str, *more: str, to: list[str] = SHORT) -> list[str]:
    return ["train", TRAIN, "-o", f"{name}.safetensors", *to, *FEW, *more]


def distill(name: str, teacher: str, *more: str, to: list[str] = FREE) -> list[str]:
    return ["distill", TRAIN, "-t", teacher, "-o", f"{name}.safetensors", *to, *FEW, *more]


COMMANDS: dict[str, list[str]] = {
    "batch": train("batch"),
    "proxies": train("proxies", "--loss", "proxy-anchor", "--ema", "0.9"),
    "several": train(
        "several",
        "--loss",
        "soft-triple:weight=0.5",
        "--loss",
        "contrastive",
        "--miner",
        "distance-weighted",
        "--clip",
        "1",
    ),
    "vectors": train("vectors", "--loss", "mutual-information", "--loss", "triplet"),
    "memory": train(
        "memory",
        "--memory",
        "64",
        "--memory-start",
        "3",
        "--memory-weight",
        "0.5",
        "--miner",
        "random",
    ),
    "miner": train("miner", "--loss", "triplet", "--miner", "semi-hard", "--augment", "affine"),
    "mix-input": train("mix-input", "--loss", "contrastive", "--mixup", "input"),
    "mix-feature": train("mix-feature", "--mixup", "feature:pairs=pos-neg+anchor-neg"),
    "mix-embedding": train(
        "mix-embedding",
        "--loss",
        "proxy-anchor",
        "--loss",
        "contrastive",
        "--mixup",
        "embedding:per_anchor=none",
    ),
    "tuples": train(
        "tuples",
        "--mining",
        "hard",
        "--queries",
        "40",
        "--pool",
        "200",
        "--loss",
        "contrastive",
        to=FREE,
    ),
    "pairs": train(
        "pairs",
        "--mining",
        "random",
        "--queries",
        "40",
        "--pairs",
        "pairs.csv",
        "--loss",
        "triplet",
        to=FREE,
    ),
    "val": train("val", "--val", "digits:test", "--patience", "1", "--val-every", "1"),
    "untrained": ["train", TRAIN, "-o", "untrained.safetensors", *TINY, "--epochs", "0"],
    "teacher": [
        "embed",
        "batch.safetensors",
        TRAIN,
        "-o",
        "teacher.h5",
        "-j",
        "0",
        *FEW,
        "-q",
        "--threads",
        "1",
    ],
    "views": [
        "embed",
        "batch.safetensors",
        TRAIN,
        "-o",
        "views.h5",
        "-j",
        "0",
        *FEW,
        "-q",
        "--views",
        "2",
        "--augment",
        "affine",
        "--threads",
        "1",
    ],
    "shard-0": [
        "embed",
        "batch.safetensors",
        TEST,
        "-o",
        "shards/0.h5",
        "-j",
        "0",
        "-q",
        "--shard",
        "0/2",
        "--threads",
        "1",
    ],
    "shard-1": [
        "embed",
        "batch.safetensors",
        TEST,
        "-o",
        "shards/1.h5",
        "-j",
        "0",
        "-q",
        "--shard",
        "1/2",
        "--threads",
        "1",
    ],
    "penultimate": [
        "embed",
        "batch.safetensors",
        TEST,
        "-o",
        "pen.h5",
        "-j",
        "0",
        "-q",
        "--penultimate",
        "--threads",
        "1",
        "--dtype",
        "float16",
    ],
    "pixels": [
        "embed",
        "pixels",
        TEST,
        "-o",
        "pixels.h5",
        "-j",
        "0",
        "-q",
        "--threads",
        "1",
        "--image-size",
        "8",
    ],
    "cached": distill("cached", "teacher.h5"),
    "online": distill("online", "batch.safetensors", "--loss", "relaxed-contrastive"),
    "viewed": distill(
        "viewed", "views.h5", "--views", "2", "--augment", "affine", "--loss", "regression"
    ),
    "neighbors": distill(
        "neighbors",
        "teacher.h5",
        "--neighbors",
        "4",
        "--loss",
        "relaxed-contrastive",
        "--loss",
        "rkd:weight=0.5",
    ),
    "mined": distill("mined", "teacher.h5", "--mining", "hard", "--queries", "40"),
    "mined-symmetric": distill(
        "mined-symmetric",
        "teacher.h5",
        "--mining",
        "hard",
        "--queries",
        "40",
        "--symmetric",
        "--loss",
        "contrastive",
    ),
    "symmetric": distill(
        "symmetric", "batch.safetensors", "--symmetric", "--loss", "contrastive", "--loss", "pkt"
    ),
    "maps": distill(
        "maps",
        "batch.safetensors",
        "--loss",
        "fitnet",
        "--loss",
        "attention",
        "--loss",
        "proxy-anchor",
        "--loss",
        "crd",
        "--stages",
        "2",
    ),
    "index": ["index", "pixels.h5", "-o", "pixels.index", "--threads", "1", "-q"],
    "index-hnsw": [
        "index",
        "pixels.h5",
        "-o",
        "hnsw.index",
        "--type",
        "hnsw:links=8",
        "--threads",
        "1",
        "-q",
    ],
    "search": ["search", "shards", "shards/0.h5", "-k", "3", "-o", "hits.h5", "-q", "--tsv"],
    "search-index": ["search", "pixels.index", "pixels.h5", "-k", "3", "-o", "hits.tsv", "-q"],
    "search-images": [
        "search",
        "shards",
        "digits:test:2",
        "--model",
        "batch.safetensors",
        "-j",
        "0",
        "-q",
    ],
    "evaluate": [
        "evaluate",
        "shards",
        "--json",
        "--metrics",
        "precision@1,recall@10,r_precision,map@r,map,mrr,nmi,ami,f1",
        "-o",
        "report.json",
        "--per-query",
        "queries.csv",
        "--per-class",
        "classes.csv",
        "--run",
        "best.run",
        "--bootstrap",
        "50",
    ],
    "asymmetric": ["evaluate", "cached.h5", "teacher.h5", "--any-model"],
    "positivity": [
        "positivity",
        "mix-embedding.safetensors",
        TRAIN,
        *FEW,
        "--json",
        "-j",
        "0",
        "--batches",
        "2",
        "--threads",
        "1",
        "-b",
        "32",
    ],
    "pack": ["pack", TEST, "-o", "images.h5", "--limit", "40", "-j", "1", "-q"],
    "info": ["info", "batch.safetensors", "pixels.h5"],
    "history": ["info", "--history", "cached.safetensors"],
    "verify": [
        "verify",
        "--full",
        "batch.safetensors",
        "pixels.h5",
        "images.h5",
        "hits.h5",
        "pixels.index",
    ],
}
COMMANDS["search-images"][2] = "images.h5"
ORDER = [name for name in COMMANDS if name != "search-images"] + ["search-images"]
BEFORE = {
    "asymmetric": [
        "embed",
        "cached.safetensors",
        TRAIN,
        "-o",
        "cached.h5",
        "-j",
        "0",
        *FEW,
        "-q",
        "--threads",
        "1",
    ]
}


def call(words: list[str]) -> tuple[int, bytes]:
    """(exit status, stdout) of the program, run in a fork of this process."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            out = os.open(".stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            from mltool.cli import main

            sys.argv = ["mltool", *words]
            main()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(bool(error.code))
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = Path(".stdout").read_bytes()
    Path(".stdout").unlink()
    return status, text


def content(path: Path) -> str:
    """A digest of what a file holds, without its history."""
    of = hashlib.sha256()
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        named = {
            re.sub(r"^objective\.terms\.(\d+)\.term\.", r"objective.terms.\1.", key): value
            for key, value in tensors.items()
        }
        for key, value in sorted(named.items()):
            of.update(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes())
    elif path.name.endswith(".history.json"):
        of.update(b"a history")
    elif data[:8] == b"\x89HDF\r\n\x1a\n":
        with h5py.File(path) as file:
            file.visititems(lambda name, item: _add(of, name, item))
    else:
        of.update(data)
    return of.hexdigest()[:16]


def _add(of: "hashlib._Hash", name: str, item: object) -> None:
    if isinstance(item, h5py.Dataset) and name != "history":
        value = item[()]
        raw = value.tobytes() if isinstance(value, np.ndarray) else str(value).encode()
        of.update(f"{name} {item.dtype} {item.shape}".encode() + raw)


def digests() -> dict[str, dict[str, str]]:
    """Run everything in an empty folder."""
    import timm  # noqa: F401 - before the forks, for all of them
    import torch

    torch.set_num_threads(1)
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("shards").mkdir()
        _pairs()
        for name in ORDER:
            if name in BEFORE:
                call(BEFORE[name])
            before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
            status, text = call(COMMANDS[name])
            row = {"status": str(status), "stdout": hashlib.sha256(text).hexdigest()[:16]}
            for path in sorted(p for p in Path().rglob("*") if p.is_file()):
                if before.get(path) != path.stat().st_mtime_ns:
                    row[f"file {path}"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                    row[f"content {path}"] = content(path)
            found[name] = row
            print(name, row, flush=True)
            if status and name != "val":
                print("  FAILED", " ".join(COMMANDS[name]), flush=True)
    return found


def _pairs() -> None:
    from sklearn.datasets import load_digits

    labels = load_digits().target
    rows = [np.flatnonzero(labels == c)[:12] for c in range(5)]
    lines = [f"{a:04d},{b:04d}" for r in rows for a, b in zip(r[::2], r[1::2], strict=True)]
    try:
        from mltool.files import digits

        names = {int(row): digits.name(row) for r in rows for row in r}
        lines = [
            f"{names[a]},{names[b]}"
            for r in rows
            for a, b in zip(r[::2].tolist(), r[1::2].tolist(), strict=True)
        ]
    except ImportError:
        pass
    Path("pairs.csv").write_text("anchor,positive\n" + "\n".join(lines) + "\n")


def main() -> None:
    how, path = sys.argv[1], Path(sys.argv[2]).absolute()
    found = digests()
    if how == "record":
        path.write_text(json.dumps(found, indent=1))
        return
    wanted = json.loads(path.read_text())
    worst = 0
    for name, row in wanted.items():
        for key, value in row.items():
            if found.get(name, {}).get(key) != value:
                of_history = key.startswith("file") or name in ("history", "info")
                print("history differs:" if of_history else "CONTENT DIFFERS:", name, key)
                worst = max(worst, 1 if of_history else 2)
    print(f"compared {len(wanted)} commands:", ["all equal", "histories differ", "WRONG"][worst])
    sys.exit(worst == 2)


if __name__ == "__main__":
    main()
