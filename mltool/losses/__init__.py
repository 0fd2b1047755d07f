"""One file = one loss on pairs: `f(pairs, *, settings) -> scalar`.

Constants of the file say what the loss needs of its caller:

* `ANCHORS` and `CANDIDATES`, each "batch" or "proxies": the rows and the columns of `Pairs`. With
  proxies, `pairs_from_labels` gets `arange(classes)` as the labels of that side.
* `SQUARE = True`: the columns are the rows, as in a batch against itself (default False).
* `PROXIES_PER_CLASS = "centers"`: the setting that says how many proxies a class has (default: one
  each). Columns are in class order, those of one class side by side, so `pairs_from_labels` gets
  `arange(classes).repeat_interleave(centers)`.
* `NEEDS = {"labels"}`: the call is `f(pairs, labels)`, labels [A] being the anchors' class indices
  (default: nothing).
* `INPUT = "vectors"`: the call is `f(vectors, labels)`, vectors [N, D] before normalisation and
  labels [N]; there is no similarity matrix, hence nothing to mix, mine or remember (default
  "pairs"; such a file declares neither side).

A loss with learnable parameters or a penalty on the proxies, `regularizer(proxies) -> scalar`, is
an `nn.Module` in CamelCase; the proxies themselves belong to the caller.

Formulas are written with the operations on pairs that this module exports.
"""

from mltool.losses._pairs import (
    Pairs,
    distance,
    has_any,
    log_odds,
    log_one_plus_sum_exp,
    log_sum_exp,
    mean_over,
    pairs_from_labels,
    row_mean,
    softmax_loss,
)

__all__ = [
    "Pairs",
    "distance",
    "has_any",
    "log_odds",
    "log_one_plus_sum_exp",
    "log_sum_exp",
    "mean_over",
    "pairs_from_labels",
    "row_mean",
    "softmax_loss",
]
