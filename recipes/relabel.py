"""Give the images of a list of pseudo-labels other labels: shuffled ones, or the true ones.

python relabel.py pseudo.csv shuffled.csv --shuffle SEED   the same clusters' sizes, by chance
python relabel.py pseudo.csv truth.csv --truth             the column `truth`, known images alone

Both are comparisons for a student: what pseudo-labels are worth that say nothing, or all.
"""

import argparse
import csv
import random
from pathlib import Path

Row = dict[str, str]


def shuffle(rows: list[Row], seed: int) -> list[Row]:
    """The same labels, each at another image."""
    labels = [row["label"] for row in rows]
    random.Random(seed).shuffle(labels)
    return [row | {"label": label} for row, label in zip(rows, labels, strict=True)]


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
    options = parser.parse_args()
    with open(options.source, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows, header = list(reader), reader.fieldnames or []
    changed = reveal(rows) if options.truth else shuffle(rows, options.shuffle)
    with open(options.target, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(changed)


if __name__ == "__main__":
    main()
