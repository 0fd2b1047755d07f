"""`evaluate` as a whole process against pytorch-metric-learning and faiss alone.

    python recipes/bench/evaluate.py                                       # SOP's size
    python recipes/bench/evaluate.py --rows 10000 --classes 2000 --rounds 2
    python recipes/bench/evaluate.py --growth 10000 100000 1000000         # 10,000 queries

All read the same file; start-up, reading and, for ours, the finding of ties are included. PML
computes precision@1, R-precision and MAP@R, faiss only the neighbours that R-precision needs.
Ratios are theirs / ours.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import _arguments
import _clustered
import _process
import _report

OURS = {"precision@1": "precision_at_1", "r_precision": "r_precision"}
OURS |= {"map@r": "mean_average_precision_at_r"}


def compare(report: _report.Report, file: Path, data: dict[str, object], rounds: int) -> None:
    """Measure A B C A B C ... so that the machine's drift cancels in the ratios."""
    words = ("evaluate", file, "--json", "-q", "--metrics", ",".join(OURS))
    runs: dict[str, list[_process.Measured]] = {"ours": [], "pml": [], "faiss": []}
    for _ in range(rounds):
        runs["ours"].append(_process.run_mltool(*words))
        runs["pml"].append(_process.run_script("_pml_accuracy.py", file))
        runs["faiss"].append(_process.run_script("_faiss_flat.py", file))
    ours, theirs = (json.loads(runs[name][0].stdout) for name in ("ours", "pml"))
    fields: dict[str, object] = {}
    for name, measured in runs.items():
        fields[f"{name}_s"] = round(statistics.median(run.seconds for run in measured), 2)
        fields[f"{name}_peak_mib"] = round(max(run.peak_mib for run in measured))
        if name != "ours":
            both = zip(runs["ours"], measured, strict=True)
            ratios = [theirs.seconds / ours.seconds for ours, theirs in both]
            fields[f"{name}_ratio"] = round(statistics.median(ratios), 2)
    fields["memory_ratio"] = round(float(str(fields["pml_peak_mib"])) / runs["ours"][0].peak_mib, 2)
    fields["largest_difference"] = max(abs(ours[a] - theirs[b]) for a, b in OURS.items())
    report.append("evaluate", **data, **fields, **{name: ours[name] for name in OURS})


def grow(folder: Path, arguments: argparse.Namespace) -> None:
    """Measure 10,000 queries, or as many as the smallest, against galleries of growing size."""
    report, rows = _report.Report(arguments.smoke), arguments.growth
    noise, dim = arguments.noise, arguments.dim
    queries = folder / "queries.h5"
    _clustered.write(queries, rows=min(10_000, min(rows)), dim=dim, classes=1000, noise=noise)
    for number in rows:
        gallery = folder / "gallery.h5"
        _clustered.write(gallery, rows=number, dim=dim, classes=number // 10, noise=noise)
        words = ("evaluate", queries, gallery, "--json", "-q", "--keep-self")
        for memory in ("1G", "4G"):
            done = _process.run_mltool(*words, "--max-memory", memory)
            report.append(
                "evaluate",
                case="growth",
                gallery=number,
                max_memory=memory,
                seconds=round(done.seconds, 2),
                peak_mib=round(done.peak_mib),
                file_mib=round(gallery.stat().st_size / 2**20),
                **_arguments.describe_data(arguments),
            )
        gallery.unlink()


def main() -> None:
    parser = _arguments.make_search_parser(__doc__, rows=_arguments.SOP_ROWS, noise=2.0)
    parser.add_argument("--classes", type=int, default=_arguments.SOP_CLASSES)
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rows, arguments.classes, arguments.dim, arguments.rounds = 1000, 200, 16, 1
    with tempfile.TemporaryDirectory() as folder:
        if arguments.growth:
            grow(Path(folder), arguments)
            return
        file = Path(folder) / "test.h5"
        sizes = {"rows": arguments.rows, "classes": arguments.classes}
        _clustered.write(file, **sizes, dim=arguments.dim, noise=arguments.noise)
        data = sizes | _arguments.describe_data(arguments)
        compare(_report.Report(arguments.smoke), file, data, arguments.rounds)


if __name__ == "__main__":
    main()
