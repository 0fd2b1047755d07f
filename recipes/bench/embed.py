"""`embed` against the bare forward loop over the same loaded batches.

    python recipes/bench/embed.py

Both read the same images with the same workers in the same precision; the loop keeps the vectors
in a list, `embed` writes names, labels, vectors, digests and progress to disk. Also how far bf16
vectors are from fp32 ones. Ratios are theirs / ours, so 1 means that embed costs nothing more.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import _arguments
import _photos
import _process
import _report
import numpy as np
import torch

from mltool import components
from mltool.datasets import open_data
from mltool.engine import device
from mltool.engine.data import Images
from mltool.engine.loading import batch_rows, load
from mltool.files import embeddings
from mltool.models.source import open_model

BATCH = 64


@dataclass(frozen=True)
class Work:
    """A network and the images that it embeds."""

    arch: str
    size: int
    photos: Path

    def embed(self, output: Path, precision: str, workers: int) -> float:
        """Run `mltool embed` and return its seconds."""
        words = ("--image-size", self.size, "-b", BATCH, "-j", workers, "--precision", precision)
        return _process.call_mltool("embed", self.arch, self.photos, "-o", output, *words, "-q")


def compare(
    report: _report.Report, work: Work, *, precision: str, workers: int, rounds: int
) -> None:
    """Measure `embed` and the loop in turns."""
    manifest = open_data([str(work.photos)], need_split=False)
    source = open_model(
        work.arch, weights=None, pooling=None, image_size=work.size, resize=None, seed=0
    )
    model = source.model.to(memory_format=torch.channels_last)
    half = torch.bfloat16 if precision == "bf16" else None
    crop = components.load("augmentations", "center", size=work.size)

    def loop() -> None:
        images = Images(manifest, model.spec, crop, seed=0)
        batches = list(batch_rows(range(len(manifest)), BATCH))
        vectors = []
        with torch.inference_mode(), torch.autocast("cpu", half, enabled=half is not None):
            for batch in load(images, batches, workers=workers):
                vectors.append(model(batch.inputs))

    with tempfile.TemporaryDirectory() as folder:
        figures = _report.measure_in_turns(
            lambda: work.embed(Path(folder, "out.h5"), precision, workers),
            lambda: _report.count_seconds(loop),
            rounds=rounds,
        )
    report.append(
        "embed",
        arch=work.arch,
        size=work.size,
        images=len(manifest),
        workers=workers,
        precision=precision,
        images_per_s=round(len(manifest) / figures["ours_s"]),
        **figures,
    )


def measure_rounding(report: _report.Report, work: Work) -> None:
    """Report the cosine between bf16 and fp32 vectors of the same images."""
    vectors = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "bf16"):
            output = Path(folder, f"{precision}.h5")
            work.embed(output, precision, workers=0)
            vectors[precision] = embeddings.read(output, load=True).vectors
    cosine = np.einsum("nd,nd->n", vectors["fp32"], vectors["bf16"])
    report.append(
        "embed_bf16",
        arch=work.arch,
        size=work.size,
        mean_cosine=round(float(cosine.mean()), 6),
        least_cosine=round(float(cosine.min()), 6),
    )


def main() -> None:
    smoke = _arguments.make_parser(__doc__).parse_args().smoke
    report = _report.Report(smoke)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        _photos.write(photos, classes=8, each=4 if smoke else 128, side=160)
        work = Work("test_resnet", 32, photos) if smoke else Work("mobilenetv2_100", 112, photos)
        workers, rounds = (0, 0) if smoke else (2, 5)
        compare(report, work, precision="fp32", workers=workers, rounds=rounds)
        if smoke or device.cpu_has_bf16():
            compare(report, work, precision="bf16", workers=workers, rounds=rounds)
            measure_rounding(report, work)


if __name__ == "__main__":
    main()
