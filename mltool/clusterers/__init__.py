"""Clusterers: one file = one function `f(vectors, *, ...) -> (labels, confidence)`.

`vectors` [N, D] may be a map of a file. `labels` [N] int64 number the clusters from 0; -1 = noise,
in no cluster. `confidence` [N] float64 lies from 0 to 1 and is 0 for noise. Besides its settings a
clusterer asks for what it needs of these: `seed`, which decides all that is random; `metric`, by
which the vectors are compared (cosine: as directions, a row of zeros being none; euclidean and dot:
by Euclidean distance); `resources` of an exact search; `reference`, the labelled vectors of
NEEDS = {"reference"}. LIBRARY names the package whose version, and whose number of threads, may
decide the last bits of the result.
"""

import importlib

from mltool.components import Choice
from mltool.processors import count_threads


def describe_library(method: Choice, threads: int | None) -> tuple[dict[str, int], dict[str, str]]:
    """Return what a record says of a clusterer's library: number of threads, version by name.

    Both may decide a row halfway between two clusters. Empty where a clusterer declares no library.
    """
    library = method.declared.library
    if not library:
        return {}, {}
    version = importlib.import_module(library).__version__
    return {"threads": threads or count_threads()}, {library: version}
