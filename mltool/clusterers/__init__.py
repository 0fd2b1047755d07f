"""Clusterers: one file = one function `f(vectors, *, seed, ...) -> (labels, confidence)`.

`vectors` [N, D] are compared by Euclidean distance; a caller who compares by cosine passes rows of
unit length. `labels` [N] int64 number the clusters from 0; -1 = noise, in no cluster. `confidence`
[N] float64 lies from 0 to 1. `seed` decides all that is random.
"""
