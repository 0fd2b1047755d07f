"""How many cores this process may use: under Slurm or taskset fewer than the machine has."""

import os


def usable_cores() -> int:
    """Count the processor cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows have no affinity mask


def count_threads() -> int:
    """Return the threads of numeric libraries: OMP_NUM_THREADS if it is set, else all cores."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else usable_cores()
