"""Forward + backward time and peak memory of every loss that PML has too, as ratios.

    python recipes/bench/losses.py                       # all cases, about half an hour on 2 cores
    python recipes/bench/losses.py --batch 128 --loss margin

Both sides start from the same vectors and labels (4 images per class; 512 classes for proxies),
compute the same value, and go back to the gradient of the vectors. Times alternate in one process;
each peak is that of a process of its own, above what it held before. A finished case is one line of
the results file and is not run again; delete the line (or the file) to repeat it.
"""

import argparse
import ctypes
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import _arguments
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning.distances import DotProductSimilarity
from torch import Tensor, nn

from mltool import components
from mltool.losses import pairs_from_labels

RESULTS = Path(__file__).parents[1] / "results" / "bench_losses.jsonl"
KEY = ("loss", "batch", "device", "threads")
DIM, CLASSES, IMAGES_PER_CLASS = 512, 512, 4

# ours with its settings, how PML makes the same
CASES: dict[str, Callable[[], nn.Module]] = {
    "contrastive:form=distance,average=active,margin=1": pml.ContrastiveLoss,
    "triplet:form=distance,margin=0.05": pml.TripletMarginLoss,
    "multi-similarity": pml.MultiSimilarityLoss,
    "multi-similarity+miner": pml.MultiSimilarityLoss,
    "margin": pml.MarginLoss,
    "nca": pml.NCALoss,
    "nt-xent": lambda: pml.NTXentLoss(0.1),
    "supcon": pml.SupConLoss,
    "lifted-structure": pml.LiftedStructureLoss,
    "generalized-lifted-structure": pml.GeneralizedLiftedStructureLoss,
    "fastap": pml.FastAPLoss,
    "circle": pml.CircleLoss,
    "n-pair:norm_weight=0": lambda: pml.NPairsLoss(
        distance=DotProductSimilarity(normalize_embeddings=False)
    ),
    "proxy-anchor": lambda: pml.ProxyAnchorLoss(CLASSES, DIM),
    "proxy-nca-pp": lambda: pml.ProxyNCALoss(CLASSES, DIM, softmax_scale=9),
    "normalized-softmax": lambda: pml.NormalizedSoftmaxLoss(CLASSES, DIM),
    "cosface": lambda: pml.CosFaceLoss(CLASSES, DIM),
    "arcface:margin=0.49916": lambda: pml.ArcFaceLoss(CLASSES, DIM),
    "soft-triple": lambda: pml.SoftTripleLoss(CLASSES, DIM),
}
Step = Callable[[], Tensor]


def make_batch(rows: int, device: str) -> tuple[Tensor, Tensor]:
    """Return vectors [rows, DIM] around their classes' centres, and labels [rows]."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) // IMAGES_PER_CLASS
    centers = torch.randn(CLASSES, DIM, generator=generator)
    vectors = centers[labels] + 2 * torch.randn(rows, DIM, generator=generator)
    return vectors.to(device).requires_grad_(), labels.to(device)


def make_our_step(case: str, rows: int, device: str) -> Step:
    """Return a forward and backward pass with mltool, as the training loop does it."""
    text, _, mined = case.partition("+")
    declared = components.parse("losses", text).declared
    loss = components.load("losses", text, classes=CLASSES, dim=DIM)
    mine = components.load("miners", "multi-similarity") if mined else None
    vectors, labels = make_batch(rows, device)
    if isinstance(loss, nn.Module):
        loss.to(device)
    inputs = declared.input or "pairs"
    sides = "" if inputs == "vectors" else declared.anchors + declared.candidates
    many = loss.centers if case.startswith("soft-triple") else 1
    proxies = torch.randn(CLASSES * many, DIM).to(device).requires_grad_()
    proxy_labels = torch.arange(CLASSES, device=device).repeat_interleave(many)

    def step() -> Tensor:
        if inputs == "vectors":
            return loss(vectors, labels)
        unit = F.normalize(vectors, dim=1)
        if sides == "batchbatch":
            itself = torch.eye(rows, dtype=torch.bool, device=device)
            pairs = pairs_from_labels(unit @ unit.T, labels, labels, exclude=itself)
        elif sides == "batchproxies":
            pairs = pairs_from_labels(unit @ F.normalize(proxies, dim=1).T, labels, proxy_labels)
        else:
            pairs = pairs_from_labels(F.normalize(proxies, dim=1) @ unit.T, proxy_labels, labels)
        pairs = mine(pairs) if mine else pairs
        return loss(pairs, labels) if "labels" in declared.needs else loss(pairs)

    return add_backward(step, vectors)


def make_pml_step(case: str, rows: int, device: str) -> Step:
    """Return a forward and backward pass with PML."""
    loss = CASES[case]().to(device)
    mine = pml_miners.MultiSimilarityMiner() if case.endswith("+miner") else None
    vectors, labels = make_batch(rows, device)
    return add_backward(
        lambda: loss(vectors, labels, mine(vectors, labels) if mine else None), vectors
    )


def add_backward(forward: Step, vectors: Tensor) -> Step:
    """Return the forward pass followed by the backward pass; it returns the loss."""

    def step() -> Tensor:
        vectors.grad = None
        value = forward()
        value.backward()
        if vectors.is_cuda:
            torch.cuda.synchronize()
        return value.detach()

    return step


def measure_peak(make: Callable[[str, int, str], Step], case: str, rows: int, device: str) -> float:
    """Return the MiB that one pass needs above what the process holds after a pass of 8 rows."""
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: what is freed goes back at once
    make(case, 8, device)()
    step = make(case, rows, device)
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
    before = _read_high_water()
    step()
    return (_read_high_water() - before) / 1024


def _read_high_water() -> int:
    """Return the largest resident size since the last reset, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def measure_times(case: str, rows: int, device: str, seconds: float) -> dict[str, float]:
    """Return the median milliseconds of both sides, taken in turn, and their values."""
    steps = {"ours": make_our_step(case, rows, device), "pml": make_pml_step(case, rows, device)}
    values = {side: step().item() for side, step in steps.items()}
    taken: dict[str, list[float]] = {side: [] for side in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not taken["pml"]:
        for side, step in steps.items():
            start = time.perf_counter()
            step()
            taken[side].append(1000 * (time.perf_counter() - start))
    medians = {f"{side}_ms": statistics.median(all_) for side, all_ in taken.items()}
    return medians | {f"{side}_loss": value for side, value in values.items()}


def run_in_child(work: Callable[[], object], limit: int) -> object:
    """Return the result of `work` in a fresh process that may hold `limit` bytes.

    Returns None where that is too few.
    """

    def run(to_parent: Connection) -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            to_parent.send(work())
        except (RuntimeError, MemoryError) as error:
            # torch says "can't allocate memory" on the CPU, "Tried to allocate" on a GPU
            if "alloc" not in str(error) and not isinstance(error, MemoryError):
                raise
            to_parent.send(None)

    # fork: the modules are imported once; the parent itself never computes
    context = multiprocessing.get_context("fork")
    parent, child = context.Pipe()
    process = context.Process(target=run, args=(child,))
    process.start()
    child.close()
    try:
        return parent.recv()
    except EOFError:
        raise SystemExit("a case ended without a result; see the traceback above") from None
    finally:
        process.join()


def measure(case: str, rows: int, options: argparse.Namespace) -> dict[str, object]:
    """Return one line of the results."""
    device = options.device
    limit = int(options.max_memory * 2**30) if device == "cpu" else 0  # CUDA maps far more
    line: dict[str, object] = {"loss": case, "batch": rows, "device": device}
    line |= {"dim": DIM, "threads": torch.get_num_threads()}
    line["ours_mib"] = run_in_child(lambda: measure_peak(make_our_step, case, rows, device), limit)
    line["pml_mib"] = run_in_child(lambda: measure_peak(make_pml_step, case, rows, device), limit)
    if line["pml_mib"] is None:
        room = f"{options.max_memory:g} GiB" if limit else "the GPU"
        return line | {"pml": f"does not fit into {room}"}
    timed = run_in_child(lambda: measure_times(case, rows, device, options.seconds), limit)
    assert isinstance(timed, dict)
    return line | timed


def show(line: dict[str, object]) -> None:
    """Print one row of the table: ours / PML, below 1 = faster or smaller."""
    cells = [f"{line['loss']!s:50}", f"{line['batch']:5}"]
    if "pml" in line:
        print(*cells, f"{line['ours_mib']:8.1f} MiB; PML {line['pml']}", flush=True)
        return
    for unit in ("ms", "mib"):
        ours, theirs = float(str(line[f"ours_{unit}"])), float(str(line[f"pml_{unit}"]))
        cells.append(f"{ours:9.2f} {theirs:9.2f} {ours / max(theirs, 1e-9):6.2f}")
    print(*cells, flush=True)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _arguments.make_parser(__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--loss", nargs="+", default=[], help="only these (start of the name)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each case")
    parser.add_argument(
        "--max-memory", type=float, default=8.0, help="GiB for each process on the CPU"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def read_results(path: Path) -> dict[tuple[object, ...], dict[str, object]]:
    """Read the finished cases: (loss, batch, device, threads) -> line."""
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return {tuple(line[key] for key in KEY): line for line in lines}


def main() -> None:
    """Run what is missing in the results file and print the table."""
    options = make_parser().parse_args()
    if options.smoke:
        options.batch, options.seconds = [8], 0.0
    finished = {} if options.smoke else read_results(options.results)
    print(f"{'loss':50} batch   ours ms    PML ms  ratio  ours MiB   PML MiB  ratio")
    for case in CASES:
        for rows in options.batch:
            if options.loss and not case.startswith(tuple(options.loss)):
                continue
            line = finished.get((case, rows, options.device, torch.get_num_threads()))
            if line is None:
                line = measure(case, rows, options)
                if not options.smoke:
                    options.results.parent.mkdir(parents=True, exist_ok=True)
                    with options.results.open("a") as file:
                        file.write(json.dumps(line, sort_keys=True) + "\n")
            show(line)


if __name__ == "__main__":
    main()
