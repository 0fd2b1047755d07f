"""One file = one level at which two examples are mixed: `f(*, settings) -> Mixup`.

Metrix gives each anchor of a pair loss candidates of its own: a mix of lambda of one example and
1 - lambda of another, pulled and pushed by the same mix of what the two are to the anchor. The
settings are those of `Mixup`, and alike on all levels; what differs is where the examples are
mixed, hence what a mixed example costs and how many there are by default.
"""

from mltool.mixups._mixup import KINDS, Mixup

__all__ = ["KINDS", "Mixup"]
