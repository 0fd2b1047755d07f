"""Option types shared by the commands, so that one spelling has one meaning everywhere."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import typer

from mltool import components
from mltool.errors import UsageError


def completing(*families: str, also: tuple[str, ...] = ()) -> Callable[[str], list]:
    """What a shell asks when the name of a component is to be completed."""

    def complete(incomplete: str) -> list:
        others = [(name, "") for name in also if name.startswith(incomplete)]
        return others + components.complete(incomplete, *families)

    return complete


SMALLEST = 1e-300  # stands for "more than 0"

# What can be different between two runs that must give the same bytes; never in a history.
RUN_TIME = frozenset(
    {
        *("output", "resume", "allow_nonidentical", "dry_run", "save_every", "log"),
        *("workers", "threads", "device", "cache", "max_memory", "stall_timeout"),
        *("quiet", "verbose", "config", "json", "tsv"),
    }
)

# Where a parameter stands in the help; the others come first, under "Options".
SECTIONS = {
    "Model": "arch weights init dim pooling projection penultimate",
    "Teacher": "teacher teacher_weights",
    "Objective": "loss miner mixup memory memory_weight memory_start positives symmetric normalize "
    "stages",
    "Images": "image_size resize keep_aspect augment split classes labels limit root on_bad_image "
    "cache",
    "Batches": "batch_size classes_per_batch images_per_class small_classes mining pairs pool "
    "queries negatives views neighbors",
    "Optimisation": "epochs lr lr_backbone lr_proxies weight_decay optimizer momentum schedule "
    "warmup freeze_bn clip ema",
    "Validation": "val select val_every patience",
    "Run": "precision device deterministic seed threads workers max_memory log save_every resume "
    "allow_nonidentical dry_run quiet verbose config help",
}

Precision = Literal["auto", "fp32", "bf16", "fp16"]
BadImage = Literal["error", "skip", "ignore"]
Cache = Literal["ram", "off"]

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="Image lists: a folder, a CSV, an .h5 file, - (paths on standard input), or "
        "BENCHMARK[:ROOT][:SPLIT] such as digits:train.",
        show_default=False,
    ),
]
Output = Annotated[
    str, typer.Option("-o", "--output", metavar="FILE", help="The file to write, whole or not.")
]
BatchSize = Annotated[int, typer.Option("-b", "--batch-size", help="Images per step and process.")]
Workers = Annotated[
    int | None,
    typer.Option("-j", "--workers", help="Loading processes; any number gives the same batches."),
]
Device = Annotated[str, typer.Option("-d", "--device", help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision", help="Arithmetic of the network; losses and similarities stay in fp32."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Fixes weights, batches and augmentation.")]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads; results may depend on it.")
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on from FILE.partial if it is there; done already is fine too."
    ),
]
DryRun = Annotated[
    bool, typer.Option("-n", "--dry-run", help="Say what would be read, written and needed; stop.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Tsv = Annotated[bool, typer.Option("--tsv", help="Print tab-separated rows.")]
OnBadImage = Annotated[
    BadImage,
    typer.Option(
        "--on-bad-image",
        help="Unreadable images: stop, leave out and exit 3, or leave out and exit 0.",
    ),
]
MaxMemory = Annotated[
    str, typer.Option("--max-memory", metavar="SIZE", help="Bound on memory, such as 4G.")
]
Limit = Annotated[int | None, typer.Option("--limit", help="Take only the first N images.")]
Split = Annotated[
    str | None, typer.Option("--split", help="The split of the list to take, or `all`.")
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", metavar="A-B", help="Classes to take: A-B in order, or names a,b."),
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="FILE", help="Take the labels from this list, by name."),
]
Root = Annotated[
    str | None, typer.Option("--root", metavar="DIR", help="Folder of relative paths in DATA `-`.")
]
CacheOption = Annotated[
    Cache, typer.Option("--cache", help="Keep decoded, resized images in memory where they fit.")
]
ImageSize = Annotated[
    int | None, typer.Option("--image-size", help="Side of the square the network sees, in pixels.")
]
Resize = Annotated[
    int | None,
    typer.Option("--resize", help="Shorter side before cropping.  [default: image size x 8/7]"),
]
KeepAspect = Annotated[
    bool,
    typer.Option(
        "--keep-aspect",
        help="Whole images, their longer side --image-size at most, instead of squares.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE|timm",
        help="Backbone weights: a .safetensors or .pth file, or timm's own.",
    ),
]

# What a number may be: (least, most); an open bound is told by the words beside it.
BOUNDS: dict[str, tuple[float, float, str]] = {
    "batch_size": (1, math.inf, "1 or more"),
    "classes_per_batch": (1, math.inf, "1 or more"),
    "images_per_class": (1, math.inf, "1 or more"),
    "epochs": (0, math.inf, "0 or more"),
    "batches": (1, math.inf, "1 or more"),
    "dim": (1, math.inf, "1 or more"),
    "image_size": (1, math.inf, "1 or more"),
    "resize": (1, math.inf, "1 or more"),
    "val_every": (1, math.inf, "1 or more"),
    "patience": (1, math.inf, "1 or more"),
    "workers": (0, math.inf, "0 or more"),
    "threads": (1, math.inf, "1 or more"),
    "seed": (0, 2**63 - 1, "0 or more"),
    "lr": (SMALLEST, math.inf, "more than 0"),
    "lr_backbone": (0, math.inf, "0 or more"),
    "lr_proxies": (0, math.inf, "0 or more"),
    "weight_decay": (0, math.inf, "0 or more"),
    "momentum": (0, 1 - 1e-9, "0 to less than 1"),
    "warmup": (0, math.inf, "0 or more"),
    "clip": (SMALLEST, math.inf, "more than 0"),
    "memory": (1, math.inf, "1 or more"),
    "stages": (1, math.inf, "1 or more"),
    "pool": (1, math.inf, "1 or more"),
    "queries": (1, math.inf, "1 or more"),
    "negatives": (1, math.inf, "1 or more"),
    "views": (1, math.inf, "1 or more"),
    "neighbors": (2, math.inf, "2 or more"),
    "memory_weight": (0, math.inf, "0 or more"),
    "memory_start": (0, math.inf, "0 or more"),
    "ema": (0, 1 - 1e-9, "0 to less than 1"),
    "save_every": (0, math.inf, "0 or more"),
    "size": (1, math.inf, "1 or more"),
    "quality": (1, 95, "1 to 95"),
}


def check_bounds(given: Mapping[str, object]) -> None:
    """Refuse numbers out of range. `given` maps option names to values. Raises UsageError."""
    for name, value in given.items():
        if name not in BOUNDS or not isinstance(value, int | float):
            continue
        least, most, words = BOUNDS[name]
        if not least <= value <= most:
            raise UsageError(f"--{name.replace('_', '-')} {value}: it takes {words}")


_SUFFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a size such as `512M` or `4G`. Raises UsageError."""
    number, suffix = text.strip().upper().removesuffix("B").removesuffix("I"), ""
    if number and number[-1] in _SUFFIXES:
        number, suffix = number[:-1], number[-1]
    try:
        size = int(float(number) * _SUFFIXES[suffix])
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"{text!r} is not a size; write it as 500M or 4G")
    return size
