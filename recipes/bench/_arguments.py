"""The arguments that the benchmarks of search and evaluation share."""

import argparse

SOP_ROWS, SOP_CLASSES = 60_502, 11_316  # Stanford Online Products' test set


def parser(doc: str | None, *, rows: int, noise: float) -> argparse.ArgumentParser:
    """`--rows`, `--dim`, `--noise` of the data, `--rounds` to measure, `--growth ROWS...`."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rows", type=int, default=rows)
    made.add_argument("--dim", type=int, default=512)
    made.add_argument("--noise", type=float, default=noise)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--growth", type=int, nargs="*", metavar="ROWS")
    return made


def facts(given: argparse.Namespace) -> dict[str, object]:
    """What every result says of its data."""
    return {"dim": given.dim, "noise": given.noise}
