"""Write reports of `evaluate` as a table, as JSON and as CSV."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence

from mltool.files import atomic
from mltool.retrieval.scoring import Report, average_by_class


def as_text(report: Report) -> str:
    """Return a table for people: metrics in percent, then the counts."""
    lines = []
    for name, value in report.metrics.items():
        low_high = report.intervals.get(name)
        around = (
            f"  ({format_percent(low_high[0])} to {format_percent(low_high[1])})"
            if low_high
            else ""
        )
        lines.append(f"{name:<18}{format_percent(value):>10}{around}")
    return "\n".join([*lines, "", *list_counts(report.counts)])


def as_table(report: Report) -> str:
    """Return a table of a row a setup of `retrieval.revisited` in percent, then the counts."""
    split = [name.rpartition("_") for name in report.metrics]
    measures = dict.fromkeys(measure for measure, _, _ in split)
    lines = [" " * 18 + "".join(f"{measure:>11}" for measure in measures)]
    for setup in dict.fromkeys(setup for _, _, setup in split):
        values = (format_percent(report.metrics[f"{measure}_{setup}"]) for measure in measures)
        lines.append(f"{setup:<18}" + "".join(f"{value:>11}" for value in values))
    return "\n".join([*lines, "", *list_counts(report.counts)])


def as_record(report: Report) -> dict[str, object]:
    """Return metrics as fractions (None = undefined), counts, and `intervals` if any."""
    record: dict[str, object] = {
        name: as_json_number(value) for name, value in report.metrics.items()
    }
    record |= report.counts
    if report.intervals:
        record["intervals"] = {
            name: [as_json_number(low), as_json_number(high)]
            for name, (low, high) in report.intervals.items()
        }
    return record


def write_per_query(path: str | os.PathLike[str], report: Report) -> None:
    """Write a CSV with a row for each query: name, label, relevant, one column a metric.

    Raises ResourceError.
    """
    queries = report.queries
    texts = [*queries.label_names, ""]
    labels = queries.labels.tolist()
    shown = [texts[k] if queries.label_names else "" if k < 0 else str(k) for k in labels]
    names = [name.decode() for name in queries.names.tolist()]
    values = [map(_format_cell, column.tolist()) for column in report.per_query.values()]
    rows = zip(names, shown, report.relevant.tolist(), *values, strict=True)
    write_rows(path, ["name", "label", "relevant", *report.per_query], rows)


def write_per_class(path: str | os.PathLike[str], report: Report) -> None:
    """Write a CSV with a row for each class of the queries: label, queries, one column a metric.

    Raises ResourceError.
    """
    labels, sizes, means = average_by_class(report)
    values = [map(_format_cell, column.tolist()) for column in means.values()]
    write_rows(
        path, ["label", "queries", *means], zip(labels, sizes.tolist(), *values, strict=True)
    )


def write_rows(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write a CSV, whole or not at all. Raises ResourceError."""
    with atomic.open_output(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.detach()


def list_counts(counts: Mapping[str, float]) -> list[str]:
    """Return a line for each count, underscores of its name as spaces."""
    named = {name.replace("_", " "): value for name, value in counts.items()}
    width = max(17, *map(len, named)) + 1
    return [f"{name:<{width}}{value:>10,}" for name, value in named.items()]


def format_percent(value: float) -> str:
    """Return a fraction in percent for people."""
    return "undefined" if math.isnan(value) else f"{100 * value:.2f} %"


def _format_cell(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def as_json_number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if math.isnan(value) else value
