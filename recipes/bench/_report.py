"""Timing in turns and one JSON line per finished case, for all benchmarks of this folder."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Report:
    """Results of a run, printed; those of a smoke run are not kept."""

    smoke: bool

    def append(self, benchmark: str, **fields: object) -> None:
        """Print a result and append it to results/bench_<benchmark>.jsonl."""
        line = json.dumps({"benchmark": benchmark, **fields})
        print(line, flush=True)
        if self.smoke:
            return
        RESULTS.mkdir(exist_ok=True)
        with open(RESULTS / f"bench_{benchmark}.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")


def measure_in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int
) -> dict[str, float]:
    """Measure seconds of both, A B A B ..., and the median of the pairwise ratios theirs / ours.

    One uncounted call of each comes first; it counts where there are no rounds. The machine's
    drift cancels in a pair.
    """
    first = (ours(), theirs())
    pairs = [(ours(), theirs()) for _ in range(rounds)] or [first]
    ratios = sorted(b / a for a, b in pairs)
    return {
        "ours_s": round(statistics.median(a for a, _ in pairs), 4),
        "theirs_s": round(statistics.median(b for _, b in pairs), 4),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(ratios[0], 3),
        "ratio_max": round(ratios[-1], 3),
        "rounds": rounds,
    }


def count_seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
