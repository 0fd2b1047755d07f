"""Show a table of results: the mean over seeds of every row, best first.

python table.py results/losses_caltech101.jsonl
python table.py results/losses_caltech101.jsonl --best 5     the names of the best rows, seed 0
python table.py results/aml_omniglot.jsonl --across symmetric asymmetric
    Markdown: rows as they came, one column of each metric for each of these parts of their names;
    a row without such a part stands in the first

Behind ± is the deviation over seeds, or with --interval the half-width of the 95 % interval of the
mean by Student's t over seeds.
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

Lines = list[dict[str, float | str]]
Spread = Callable[[list[float]], float]


def by_row(lines: Lines) -> dict[str, Lines]:
    """The lines of each row, in order of appearance."""
    rows: dict[str, Lines] = defaultdict(list)
    for line in lines:
        rows[str(line["run"])].append(line)
    return rows


def half_width(values: list[float]) -> float:
    """Return h of the 95 % interval mean ± h of the mean of normal values, by Student's t."""
    from scipy.stats import t  # takes longer than all the rest

    quantile = float(t.ppf(0.975, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def shown(values: list[float], spread: Spread) -> str:
    """`54.5 ± 0.2` in percent; a single value without a spread."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * spread(values):.1f}" if len(values) > 1 else mean


def print_table(lines: Lines, metrics: list[str], spread: Spread) -> None:
    """One line a row, by the mean of the last metric."""
    rows = by_row(lines)
    means = {
        name: statistics.fmean(float(line[metrics[-1]]) for line in found)
        for name, found in rows.items()
    }
    width = max(map(len, rows), default=3)
    print(f"{'row':{width}}  {'seeds':>5}" + "".join(f"  {metric:>12}" for metric in metrics))
    for name in sorted(rows, key=lambda name: -means[name]):
        cells = [shown([float(line[metric]) for line in rows[name]], spread) for metric in metrics]
        print(f"{name:{width}}  {len(rows[name]):>5}" + "".join(f"  {cell:>12}" for cell in cells))


def print_across(lines: Lines, metrics: list[str], groups: list[str], spread: Spread) -> None:
    """A Markdown table of rows that differ in one part of their name, side by side."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for name, found in by_row(lines).items():
        kinds = [part.partition(":")[0] for part in name.split("/")]
        group = next((kind for kind in kinds if kind in groups), groups[0])
        row = "/".join(kind for kind in kinds if kind not in groups)
        for metric in metrics:
            values = [float(line[metric]) for line in found]
            cells[row][f"{group} {metric}"] = shown(values, spread)
    columns = [f"{group} {metric}" for group in groups for metric in metrics]
    print("| row | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for row, there in cells.items():
        print(f"| {row} | " + " | ".join(there.get(column, "") for column in columns) + " |")


def best(lines: Lines, metric: str, count: int) -> list[str]:
    """The rows with the highest metric at seed 0, so that further seeds do not change the choice"""
    first = {str(line["run"]): float(line[metric]) for line in lines if line.get("seed") == 0}
    return sorted(first, key=lambda name: -first[name])[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--best", type=int)
    parser.add_argument("--across", nargs="+", metavar="PART")
    parser.add_argument("--metrics", default="precision@1,map@r")
    parser.add_argument("--interval", action="store_true")
    given = parser.parse_args()
    spread = half_width if given.interval else statistics.stdev
    lines = [json.loads(line) for line in given.table.read_text().splitlines()]
    metrics = given.metrics.split(",")
    if given.best is not None:
        print("\n".join(best(lines, metrics[-1], given.best)))
    elif given.across:
        print_across(lines, metrics, given.across, spread)
    else:
        print_table(lines, metrics, spread)


if __name__ == "__main__":
    main()
