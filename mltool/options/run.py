"""How a command is carried out: where, with how many processes, and what is kept meanwhile."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from mltool.errors import UsageError
from mltool.options.batches import BatchSize
from mltool.options.defaults import NO_PRESET, complete_preset, list_presets
from mltool.options.group import UNRECORDED, Rule, number

option = partial(typer.Option, rich_help_panel="Run")

Output = Annotated[
    str, typer.Option("-o", "--output", metavar="FILE", help="The file to write, whole or not.")
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    option("--precision", help="Arithmetic of the network; losses and similarities stay in fp32."),
]


def check_device(text: str) -> str:
    """Return the name of a device as it is. Raises BadParameter for what is none."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", text):
        raise typer.BadParameter(f"no device {text!r}; use auto, cpu, cuda, cuda:N or mps")
    return text


Device = Annotated[
    str,
    option("-d", "--device", callback=check_device, help="auto, cpu, cuda, cuda:N or mps."),
    UNRECORDED,
]
Seed = Annotated[
    int,
    option("--seed", min=0, max=2**63 - 1, help="Fixes weights, batches and augmentation."),
]
Threads = Annotated[
    int | None,
    option("--threads", min=1, help="CPU threads; results may depend on it."),
    UNRECORDED,
]
Workers = Annotated[
    int | None,
    option("-j", "--workers", min=0, help="Loading processes; any number gives the same batches."),
    UNRECORDED,
]
Resume = Annotated[
    bool,
    option("--resume", help="Go on from FILE.partial if it is there; done already is fine too."),
    UNRECORDED,
]
Preset = Annotated[
    str,
    option(
        "--preset",
        metavar="NAME",
        help=f"Defaults of other options, below --config: {', '.join(list_presets())}.",
        autocompletion=complete_preset,
    ),
    # its values are recorded; the line that makes an output again names them all
    Rule(recorded=False, neutral=NO_PRESET),
]
DryRun = Annotated[
    bool,
    option("-n", "--dry-run", help="Say what would be read, written and needed; stop."),
    UNRECORDED,
]
MaxMemory = Annotated[
    str,
    option("--max-memory", metavar="SIZE", help="Bound on memory, such as 4G."),
    UNRECORDED,
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object."), UNRECORDED]

_SUFFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """A run that learns."""

    precision: Precision = "auto"
    device: Device = "auto"
    deterministic: Annotated[
        bool,
        option("--deterministic/--no-deterministic", help="The same bytes every time on CUDA too."),
    ] = False
    seed: Seed = 0
    threads: Threads = None
    workers: Workers = None
    log: Annotated[
        str | None,
        option("--log", metavar="FILE.jsonl", help="One JSON object per figure."),
        UNRECORDED,
    ] = None
    save_every: Annotated[
        float,
        option(
            "--save-every",
            callback=number(least=0),
            help="Seconds between saves of the running state.",
        ),
        UNRECORDED,
    ] = 60.0
    resume: Resume = False
    allow_nonidentical: Annotated[
        bool,
        option(
            "--allow-nonidentical",
            help="Resume although batch, threads or device differ; the bytes may differ then.",
        ),
        UNRECORDED,
    ] = False
    dry_run: DryRun = False


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """A run of a model that does not learn."""

    batch_size: BatchSize = 64
    precision: Precision = "auto"
    device: Device = "auto"
    seed: Seed = 0
    threads: Threads = None
    workers: Workers = None


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `512M` or `4G`. Raises UsageError."""
    number_text, suffix = text.strip().upper().removesuffix("B").removesuffix("I"), ""
    if number_text and number_text[-1] in _SUFFIXES:
        number_text, suffix = number_text[:-1], number_text[-1]
    try:
        size = int(float(number_text) * _SUFFIXES[suffix])
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"{text!r} is not a size; write it as 500M or 4G")
    return size
