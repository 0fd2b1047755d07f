"""`train` against what a user would write.

    python recipes/bench/train.py step       the same model, loss and loader in a plain loop
    python recipes/bench/train.py streams    a step with two streams, as of a student with
                                             pseudo-labels, against one of as many images
    python recipes/bench/train.py learners   a step of divide and conquer, four slices, against the
                                             plain one, in seconds of the processor
    python recipes/bench/train.py pipeline   whole runs from JPEGs against pytorch-metric-learning,
                                             torchvision's ImageFolder and torch's DataLoader

A step of ours is the time of some epochs of `train` less that of writing the untrained model.
Ratios are theirs / ours, so above 1 we are faster.
"""

import tempfile
import time
from pathlib import Path

import _arguments
import _photos
import _process
import _report
import numpy as np
import torch

from mltool import components
from mltool.datasets import open_data
from mltool.engine.data import Images
from mltool.engine.loading import load
from mltool.files.lists.csv_list import write_csv
from mltool.losses import pairs_from_labels
from mltool.models.embedder import build

DATA, CLASSES, DIM = "digits:train", 5, 128
PARTS = ["step", "streams", "learners", "pipeline"]


def compare_steps(
    report: _report.Report, arch: str, size: int, batch: int, *, epochs: int, rounds: int
) -> None:
    """Measure some epochs on digits, by `train` and in a plain loop."""
    steps = epochs * (len(open_data([DATA], need_split=True)) // batch)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "m.safetensors")
        words = ("--arch", arch, "--image-size", size, "--resize", size, "--dim", DIM, "-b", batch)
        words += ("--augment", "center", "--classes-per-batch", CLASSES, "-j", 0, "-q")

        def train(epochs: int) -> float:
            return _process.call_mltool("train", DATA, "-o", output, *words, "--epochs", epochs)

        figures = _report.measure_in_turns(
            lambda: train(epochs) - train(0),
            lambda: time_plain_loop(arch, size, batch, steps),
            rounds=rounds,
        )
    report.append("train_step", arch=arch, size=size, batch=batch, steps=steps, **figures)


def time_plain_loop(arch: str, size: int, batch: int, steps: int) -> float:
    """Return the seconds of `steps` steps as a user would write them."""
    manifest = open_data([DATA], need_split=True).compact()
    model = build(
        arch,
        pooling="gem",
        projection="linear",
        dim=DIM,
        image_size=size,
        resize=size,
        weights=None,
        seed=0,
    )
    model = model.train().to(memory_format=torch.channels_last)
    crop = components.load("augmentations", "center", size=size)
    images = Images(manifest, model.spec, crop, seed=0, cache=True)
    generator = np.random.default_rng(0)
    members = [np.flatnonzero(manifest.labels == number) for number in range(CLASSES)]
    batches = [
        [
            (int(row), step)
            for rows in members
            for row in generator.choice(rows, batch // CLASSES, replace=False)
        ]
        for step in range(steps)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4, fused=True)
    loss_of = components.load("losses", "multi-similarity")

    def work() -> None:
        for seen in load(images, batches, workers=0):
            vectors = model(seen.inputs)
            itself = torch.eye(len(vectors), dtype=torch.bool)
            sim = vectors @ vectors.T
            loss = loss_of(pairs_from_labels(sim, seen.labels, seen.labels, exclude=itself))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return _report.count_seconds(work)


def compare_streams(
    report: _report.Report, arch: str, size: int, batch: int, *, epochs: int, rounds: int
) -> None:
    """Measure a step of two streams of `batch` digits each, with and without a basis."""
    with tempfile.TemporaryDirectory() as folder:
        output, pseudo = Path(folder, "m.safetensors"), Path(folder, "pseudo.csv")
        write_csv(pseudo, open_data(["digits:test"]))
        words = ("--arch", arch, "--image-size", size, "--resize", size, "--dim", DIM, "-j", 0)
        words += ("--augment", "center", "-q", "-o", output)

        def time_step(*more: object, steps: int) -> float:
            """Return the seconds of a step; an epoch has `steps`."""
            each = [
                _process.call_mltool("train", *words, *more, "--epochs", count)
                for count in (epochs, 0)
            ]
            return (each[0] - each[1]) / (epochs * steps)

        images = len(open_data([DATA], need_split=True))
        every = len(open_data(["digits"]))
        one = ("digits", "--split", "all", "-b", 2 * batch, "--classes-per-batch", 2 * CLASSES)
        two = (DATA, "--unlabeled", pseudo, "-b", batch, "--classes-per-batch", CLASSES)
        for basis in ((), ("--basis", "slade:warmup=none")):
            figures = _report.measure_in_turns(
                lambda basis=basis: time_step(*two, *basis, steps=images // batch),
                lambda: time_step(*one, steps=every // (2 * batch)),
                rounds=rounds,
            )
            report.append(
                "train_streams",
                arch=arch,
                size=size,
                batch=batch,
                basis=" ".join(basis[1:]),
                **figures,
            )


def compare_learners(
    report: _report.Report,
    arch: str,
    size: int,
    batch: int,
    *,
    epochs: int,
    rounds: int,
    loss: str = "margin",
) -> None:
    """Measure a step with four learners, in seconds of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        output, split = Path(folder, "m.safetensors"), Path(folder, "split.csv")
        manifest = open_data([DATA])
        write_csv(split, manifest, columns={"cluster": np.arange(len(manifest)) % 4})
        words = ("--arch", arch, "--image-size", size, "--resize", size, "--dim", DIM, "-b", batch)
        words += ("--augment", "center", "--classes-per-batch", CLASSES, "-j", 0, "-q")
        words += ("--loss", loss, "-o", output)

        def time_epochs(*more: object) -> float:
            seconds = []
            for count in (epochs, 0):
                start = time.process_time()
                _process.call_mltool("train", DATA, *words, *more, "--epochs", count)
                seconds.append(time.process_time() - start)
            return seconds[0] - seconds[1]

        figures = _report.measure_in_turns(
            lambda: time_epochs("--parts", "slices", "--clusters", split),
            time_epochs,
            rounds=rounds,
        )
    report.append("train_learners", arch=arch, size=size, batch=batch, loss=loss, **figures)


def compare_pipelines(
    report: _report.Report, arch: str, size: int, side: int, *, epochs: int, rounds: int
) -> None:
    """Measure whole processes on the same JPEGs: 20 classes x 24 images, batches of 10 x 4."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        photos, output = folder / "images", folder / "m.safetensors"
        _photos.write(photos, classes=20, each=24, side=side)
        resize = round(size * 8 / 7)
        words = ("--arch", arch, "--image-size", size, "--resize", resize, "--dim", DIM)
        words += ("--epochs", epochs, "-b", 40, "--classes-per-batch", 10)
        words += ("--schedule", "constant", "-q")

        def ours() -> float:
            return _process.run_mltool("train", photos, "-o", output, *words).seconds

        def theirs() -> float:
            baseline = ("_pml_training.py", photos, arch, size, resize, epochs)
            return _process.run_script(*baseline).seconds

        figures = _report.measure_in_turns(ours, theirs, rounds=rounds)
    report.append("train_pipeline", arch=arch, size=size, jpeg_side=side, epochs=epochs, **figures)


def main() -> None:
    parser = _arguments.make_parser(__doc__)
    parser.add_argument("parts", nargs="*", metavar="step|streams|learners|pipeline", default=PARTS)
    arguments = parser.parse_args()
    report = _report.Report(arguments.smoke)
    if arguments.smoke:
        compare_steps(report, "test_resnet", 16, 60, epochs=1, rounds=0)
        compare_streams(report, "test_resnet", 16, 60, epochs=1, rounds=0)
        compare_learners(report, "test_resnet", 16, 60, epochs=1, rounds=0)
        compare_pipelines(report, "test_resnet", 32, 40, epochs=1, rounds=0)
        return
    if "step" in arguments.parts:
        compare_steps(report, "resnet10t", 32, 120, epochs=3, rounds=7)
        compare_steps(report, "mobilenetv2_100", 112, 60, epochs=1, rounds=5)
    if "streams" in arguments.parts:
        compare_streams(report, "resnet10t", 32, 60, epochs=3, rounds=7)
    if "learners" in arguments.parts:
        for loss in ("margin", "proxy-anchor"):
            compare_learners(report, "resnet10t", 32, 60, epochs=2, rounds=7, loss=loss)
    if "pipeline" in arguments.parts:
        compare_pipelines(report, "test_resnet", 32, 800, epochs=6, rounds=3)
        compare_pipelines(report, "resnet10t", 64, 240, epochs=6, rounds=3)


if __name__ == "__main__":
    main()
