"""`embed` against the bare forward loop over the same loaded batches.

    python recipes/bench/embed.py

Both read the same images with the same workers in the same precision; the loop keeps the vectors
in a list, `embed` writes names, labels, vectors, digests and progress to disk. Also how far bf16
vectors are from fp32 ones. Ratios are theirs / ours, so 1 means that embed costs nothing more.
"""

import tempfile
from pathlib import Path

import _report
import numpy as np
import torch

from mltool import components
from mltool.datasets import open_data
from mltool.engine import device
from mltool.engine.data import Images
from mltool.engine.loading import load
from mltool.files import embeddings
from mltool.files.lists.image_lists import read
from mltool.models.source import open_model
from mltool.signatures.embed import embed

BATCH = 64


def case(arch: str, size: int, data: str, workers: int, precision: str, rounds: int) -> None:
    manifest = open_data([data], need_split=False)
    source = open_model(arch, weights=None, pooling=None, image_size=size, resize=None, seed=0)
    model = source.model.to(memory_format=torch.channels_last)
    half = torch.bfloat16 if precision == "bf16" else None
    crop = components.load("augmentations", "center", size=size)

    def theirs() -> float:
        images = Images(manifest, model.spec, crop, seed=0)
        rows = [
            [(r, 0) for r in range(s, min(s + BATCH, len(manifest)))]
            for s in range(0, len(manifest), BATCH)
        ]
        found = []

        def work() -> None:
            with torch.inference_mode(), torch.autocast("cpu", half, enabled=half is not None):
                for batch in load(images, rows, workers=workers):
                    found.append(model(batch.images))

        return _report.seconds(work)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            out = str(Path(folder, "out.h5"))
            return _report.seconds(
                lambda: embed(
                    arch,
                    [data],
                    out,
                    image_size=size,
                    workers=workers,
                    precision=precision,
                    batch_size=BATCH,
                )
            )

    figures = _report.in_turns(ours, theirs, rounds=rounds)
    rate = round(len(manifest) / figures["ours_s"])
    _report.append(
        "embed",
        arch=arch,
        size=size,
        images=len(manifest),
        workers=workers,
        precision=precision,
        images_per_s=rate,
        **figures,
    )


def rounding(arch: str, size: int, data: str) -> None:
    """The distance between bf16 and fp32 vectors of the same images."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for precision in ("fp32", "bf16"):
            path = str(Path(folder, f"{precision}.h5"))
            embed(arch, [data], path, image_size=size, precision=precision, batch_size=BATCH)
            found[precision] = embeddings.read(path, load=True).vectors
    cosine = np.einsum("nd,nd->n", found["fp32"], found["bf16"])
    _report.append(
        "embed_bf16",
        arch=arch,
        size=size,
        mean_cosine=round(float(cosine.mean()), 6),
        least_cosine=round(float(cosine.min()), 6),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        _make_photos(photos, count=1024)
        case("mobilenetv2_100", 112, str(photos), 2, "fp32", 5)
        if device.cpu_has_bf16():
            case("mobilenetv2_100", 112, str(photos), 2, "bf16", 5)
            rounding("mobilenetv2_100", 112, str(photos))
        assert len(read(str(photos))) == 1024


def _make_photos(folder: Path, *, count: int) -> None:
    from train import make_jpegs

    make_jpegs(folder, classes=8, each=count // 8, side=160)


if __name__ == "__main__":
    main()
