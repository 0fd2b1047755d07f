"""The arguments of the benchmarks: `--smoke` of all, sizes of those of search and evaluation."""

import argparse

SOP_ROWS, SOP_CLASSES = 60_502, 11_316  # Stanford Online Products' test set


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--smoke`: seconds of work, and nothing added to results/."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, no results kept")
    return parser


def make_search_parser(doc: str | None, *, rows: int, noise: float) -> argparse.ArgumentParser:
    """Add `--rows`, `--dim`, `--noise` of the data, `--rounds` to measure, `--growth ROWS...`."""
    parser = make_parser(doc)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=noise)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", type=int, nargs="*", metavar="ROWS")
    return parser


def describe_data(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what every result says of its data."""
    return {"dim": arguments.dim, "noise": arguments.noise}
