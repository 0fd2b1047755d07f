"""The table of results: means over seeds and what stands behind ±."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

TABLE = Path(__file__).parent.parent / "recipes" / "table.py"


def show(tmp_path: Path, *words: str, **rows: list[float]) -> list[str]:
    path = tmp_path / "table.jsonl"
    lines = [
        json.dumps({"run": name, "seed": seed, "precision@1": value, "map@r": value / 2})
        for name, values in rows.items()
        for seed, value in enumerate(values)
    ]
    path.write_text("\n".join(lines))
    command = [sys.executable, str(TABLE), str(path), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_the_interval_is_that_of_students_t(count: int) -> None:
    values = np.random.default_rng(count).normal(0.5, 0.1, count)
    error = np.std(values, ddof=1) / np.sqrt(count)
    low, high = t.interval(0.95, count - 1, loc=np.mean(values), scale=error)
    half_width = runpy.run_path(str(TABLE))["half_width"](values.tolist())
    assert half_width == pytest.approx((high - low) / 2, rel=1e-9)


def test_rows_show_the_deviation_or_the_interval(tmp_path: Path) -> None:
    values = [0.4, 0.5, 0.6]  # deviation 0.1; t of two degrees of freedom is 4.303
    plain = show(tmp_path, ours=values, single=[0.3])
    assert plain[1].split() == ["ours", "3", "50.0", "±", "10.0", "25.0", "±", "5.0"]
    assert plain[2].split() == ["single", "1", "30.0", "15.0"]
    interval = show(tmp_path, "--interval", ours=values, single=[0.3])
    assert interval[1].split() == ["ours", "3", "50.0", "±", "24.8", "25.0", "±", "12.4"]
    assert interval[2].split() == ["single", "1", "30.0", "15.0"]
    across = show(tmp_path, "--interval", "--across", "T", "S", **{"a/T": values, "a/S": [0.7]})
    assert across[2] == "| a | 50.0 ± 24.8 | 25.0 ± 12.4 | 70.0 | 35.0 |"
