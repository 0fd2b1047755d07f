"""`train` against what a user would write.

    python recipes/bench/train.py step       the same model, loss and loader in a plain loop
    python recipes/bench/train.py pipeline   whole runs from JPEGs against pytorch-metric-learning,
                                             torchvision's ImageFolder and torch's DataLoader

Ratios are theirs / ours, so above 1 we are faster.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import _report
import numpy as np
import torch
from PIL import Image

from mltool import components
from mltool.datasets import open_data
from mltool.engine import training
from mltool.engine.data import Images
from mltool.engine.loading import load
from mltool.engine.loop import LoopSettings
from mltool.engine.objectives.objective import Supervised
from mltool.engine.optim import OptimSettings
from mltool.engine.samplers import ClassBalanced
from mltool.engine.training import Plan, Runtime
from mltool.losses import pairs_from_labels
from mltool.models.embedder import Embedder, build

RATES = OptimSettings("adamw", 1e-3, None, None, 1e-4, 0.9, "constant", 0.0)


def step(arch: str, size: int, batch: int, steps: int, rounds: int) -> None:
    """One epoch of `steps` steps on digits, through the engine and through a plain loop."""
    manifest = open_data(["digits:train"], need_split=True).compact()

    def parts() -> tuple[Embedder, Images, ClassBalanced]:
        model = build(
            arch,
            pooling="gem",
            projection="linear",
            dim=128,
            image_size=size,
            resize=size,
            weights=None,
            seed=0,
        )
        crop = components.load("augmentations", "center", size=size)
        images = Images(manifest, model.spec, crop, seed=0, cache=True)
        sampler = ClassBalanced(
            np.tile(manifest.labels, 1), classes_per_batch=5, images_per_class=batch // 5, seed=0
        )
        return model, images, sampler

    def ours() -> float:
        model, images, sampler = parts()
        sampler.images = steps * batch
        objective = Supervised(["multi-similarity"], miner=None, classes=5, dim=128, seed=0)
        loop = LoopSettings(1, 0, "fp32", False, None, 1, None)
        history = ({"command": "train", "settings": {}},)
        plan = Plan(model, objective, images, sampler, loop, RATES, None, False, None, (), history)
        with tempfile.TemporaryDirectory() as folder:
            output = str(Path(folder, "m.safetensors"))
            runtime = Runtime(output, False, False, 60.0, None, 0, torch.device("cpu"))
            return _report.seconds(
                lambda: training._fit(plan, runtime, training._identity(plan, runtime))
            )

    def theirs() -> float:
        model, images, sampler = parts()
        model = model.train().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4, fused=True)
        loss_of = components.load("losses", "multi-similarity")
        batches = [sampler.batch(0, number) for number in range(steps)]

        def work() -> None:
            for seen in load(images, batches, workers=0):
                vectors = model(seen.images)
                itself = torch.eye(len(vectors), dtype=torch.bool)
                pairs = pairs_from_labels(
                    vectors @ vectors.T, seen.labels, seen.labels, exclude=itself
                )
                loss = loss_of(pairs)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()

        return _report.seconds(work)

    figures = _report.in_turns(ours, theirs, rounds=rounds)
    _report.append("train_step", arch=arch, size=size, batch=batch, steps=steps, **figures)


def make_jpegs(folder: Path, *, classes: int, each: int, side: int) -> None:
    """Photograph-like noise: smooth colour fields with texture, one palette per class."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        place = folder / f"class{number:02d}"
        place.mkdir(parents=True)
        base = generator.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        for item in range(each):
            field = base.astype(int) + generator.integers(-40, 40, base.shape)
            small = Image.fromarray(field.clip(0, 255).astype(np.uint8))
            image = np.asarray(small.resize((side, side * 3 // 4), Image.Resampling.BICUBIC))
            noisy = image.astype(int) + generator.integers(-12, 12, image.shape)
            jpeg = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            jpeg.save(place / f"{item:03d}.jpg", quality=90)


def pipeline(arch: str, size: int, side: int, epochs: int, rounds: int) -> None:
    """Whole processes on the same JPEGs: 20 classes x 24 images, batches of 10 x 4."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        make_jpegs(folder / "images", classes=20, each=24, side=side)
        images, output = str(folder / "images"), str(folder / "m.safetensors")
        resize = str(round(size * 8 / 7))
        command = [
            sys.executable,
            "-m",
            "mltool",
            "train",
            images,
            "-o",
            output,
            "--arch",
            arch,
            "--image-size",
            str(size),
            "--resize",
            resize,
            "--dim",
            "128",
            "--epochs",
            str(epochs),
            "-b",
            "40",
            "--classes-per-batch",
            "10",
            "--schedule",
            "constant",
            "-q",
        ]
        baseline = [
            sys.executable,
            str(Path(__file__).parent / "_pml_training.py"),
            images,
            arch,
            str(size),
            resize,
            str(epochs),
        ]

        def run(words: list[str]) -> float:
            return _report.seconds(lambda: subprocess.run(words, check=True, capture_output=True))

        figures = _report.in_turns(lambda: run(command), lambda: run(baseline), rounds=rounds)
        _report.append(
            "train_pipeline", arch=arch, size=size, jpeg_side=side, epochs=epochs, **figures
        )


def main() -> None:
    wanted = sys.argv[1:] or ["step", "pipeline"]
    if "step" in wanted:
        step("resnet10t", 32, 120, steps=20, rounds=7)
        step("mobilenetv2_100", 112, 60, steps=8, rounds=5)
    if "pipeline" in wanted:
        pipeline("test_resnet", 32, 800, epochs=6, rounds=3)
        pipeline("resnet10t", 64, 240, epochs=6, rounds=3)


if __name__ == "__main__":
    main()
