"""Give the images of a list other labels or clusters: shuffled ones, or the true ones.

python relabel.py pseudo.csv shuffled.csv --shuffle SEED   the same clusters' sizes, by chance
python relabel.py split.csv shuffled.csv --shuffle SEED --column cluster
python relabel.py pseudo.csv truth.csv --truth             the column `truth`, known images alone

All are comparisons: what pseudo-labels or clusters are worth that say nothing, or all.
"""

import argparse
import csv
import random
from pathlib import Path

Row = dict[str, str]


def shuffle(rows: list[Row], seed: int, *, column: str) -> list[Row]:
    """The same values of a column, each at another image."""
    values = [row[column] for row in rows]
    random.Random(seed).shuffle(values)
    return [row | {column: value} for row, value in zip(rows, values, strict=True)]


def reveal(rows: list[Row]) -> list[Row]:
    """The images whose class is known, under that class."""
    return [row | {"label": row["truth"]} for row in rows if row["truth"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--shuffle", type=int, metavar="SEED")
    how.add_argument("--truth", action="store_true")
    parser.add_argument("--column", default="label", help="what is shuffled")
    options = parser.parse_args()
    with open(options.source, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows, header = list(reader), reader.fieldnames or []
    truth = options.truth
    changed = reveal(rows) if truth else shuffle(rows, options.shuffle, column=options.column)
    with open(options.target, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(changed)


if __name__ == "__main__":
    main()
