"""What a step costs with mixed examples: its time over that of the loss alone.

    python recipes/bench/mixup.py

An epoch of `train` is one batch of 32 classes x 4 images, kept decoded in memory; a measure is the
time of some epochs less that of writing the untrained model. `ratio` is that of the times, with
mixup over without; `mixed` is how many mixed examples a step has.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import _arguments
import _photos
import _process
import _report

LOSSES = ("contrastive", "multi-similarity", "proxy-anchor")
CLASSES, EACH, DIM = 32, 4, 128


@dataclass(frozen=True)
class Network:
    """What is trained: a timm backbone with or without (`bare`) GeM and a projection."""

    arch: str
    size: int
    stage: str  # where maps are mixed
    bare: bool = False

    @property
    def words(self) -> tuple[object, ...]:
        """The options of `train`."""
        head = ("--pooling", "avg", "--projection", "none") if self.bare else ("--dim", DIM)
        size = ("--image-size", self.size, "--resize", self.size, "--augment", "center")
        return ("--arch", self.arch, *size, *head, "--lr", 1e-4, "-b", CLASSES * EACH, "-j", 0)


def time_steps(photos: Path, words: tuple[object, ...], steps: int) -> Callable[[], float]:
    """Return a function that measures the seconds of `steps` steps of `train`."""

    def train(epochs: int) -> float:
        output = photos.parent / "model.safetensors"
        return _process.call_mltool("train", photos, "-o", output, "-q", *words, "--epochs", epochs)

    return lambda: train(steps) - train(0)


def compare(
    report: _report.Report,
    photos: Path,
    net: Network,
    *,
    losses: tuple[str, ...] = LOSSES,
    steps: int,
    rounds: int,
) -> None:
    """Measure every loss and level on one network."""
    levels = {"input": 1, f"feature:stage={net.stage}": 4, "embedding": 16}
    for loss in losses:
        for level, mixed in levels.items():
            words = (*net.words, "--loss", loss)
            figures = _report.measure_in_turns(
                time_steps(photos, words, steps),
                time_steps(photos, (*words, "--mixup", level), steps),
                rounds=rounds,
            )
            anchors = CLASSES if loss == "proxy-anchor" else CLASSES * EACH
            report.append(
                "mixup", arch=net.arch, size=net.size, loss=loss, level=level,
                mixed=anchors * mixed, steps=steps, **figures,
            )  # fmt: skip


def main() -> None:
    parser = _arguments.make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    report = _report.Report(arguments.smoke)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        _photos.write(photos, classes=CLASSES, each=EACH, side=64)
        if arguments.smoke:
            tiny = Network("test_resnet", 16, "layer2")
            compare(report, photos, tiny, losses=LOSSES[:1], steps=1, rounds=0)
            return
        rounds = arguments.rounds
        compare(report, photos, Network("resnet10t", 32, "layer2"), steps=10, rounds=rounds)
        mobile = Network("mobilenetv2_100", 64, "blocks.4", bare=True)
        compare(report, photos, mobile, steps=4, rounds=rounds)


if __name__ == "__main__":
    main()
