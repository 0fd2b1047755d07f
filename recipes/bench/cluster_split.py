"""`cluster-split` as a whole process: time, memory, and how many images keep their learner.

    python recipes/bench/cluster_split.py                       # 200k x 2,048, K = 8
    python recipes/bench/cluster_split.py --rows 1000000        # 8.2 GB, and as much while made

Three rounds of one course on made unit vectors: the first split; one with `--previous`; one that
doubles. With the default `--method` the means move among 100,000 images;
`--method kmeans` lets all of them, which must fit into `--max-memory`. `OMP_NUM_THREADS` holds.
"""

import argparse
import json
import tempfile
from pathlib import Path

import _arguments
import _clustered
import _process
import _report


def measure(arguments: argparse.Namespace) -> None:
    """Measure each round; print and keep one line for each."""
    report = _report.Report(arguments.smoke)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        file = Path(name, "vectors.h5")
        facts = {"rows": arguments.rows, "dim": arguments.dim, "classes": arguments.classes}
        _clustered.write(file, noise=arguments.noise, **facts)
        first, second, third = (Path(name, f"{number}.csv") for number in range(3))
        common = ["-k", arguments.k, "--max-memory", arguments.max_memory, "--json", "-q"]
        common += ["--method", arguments.method]
        for round_name, words in {
            "first": ["-o", first],
            "previous": ["-o", second, "--previous", first],
            "double": ["-o", third, "--previous", second, "--double"],
        }.items():
            done = _process.run_mltool("cluster-split", file, *common, *words)
            counts = json.loads(done.stdout)
            report.append(
                "cluster_split",
                **facts,
                noise=arguments.noise,
                k=arguments.k,
                method=arguments.method,
                round=round_name,
                seconds=round(done.seconds, 2),
                cpu_seconds=round(done.cpu_seconds, 2),
                peak_mib=round(done.peak_mib),
                **{key: counts.get(key) for key in ("clusters", "set_aside", "in_both", "kept")},
            )


def main() -> None:
    parser = _arguments.make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--method", default="kmeans:sample=100000")
    parser.add_argument("--max-memory", default="4G")
    parser.add_argument("--folder", help="where the vectors lie meanwhile")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rows, arguments.dim, arguments.classes, arguments.k = 600, 8, 60, 2
    measure(arguments)


if __name__ == "__main__":
    main()
