"""Goldberger, Roweis, Hinton, Salakhutdinov, Neighbourhood Components Analysis, NeurIPS 2004."""

from torch import Tensor

from mltool.losses._pairs import Pairs, softmax_loss
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"


def nca(pairs: Pairs, *, scale: Positive = 1.0) -> Tensor:
    """Maximise the chance that a random neighbour, near ones preferred, has the anchor's class.

    mean_a -log( sum_p e^(-scale D_ap^2) / sum_(p, n) e^(-scale D^2) )

    Args:
        pairs: [A, B].
        scale: multiplies the squared distances; 8 to 16 suit unit vectors better than 1.

    On unit vectors D^2 = 2 - 2 s, so the exponent is 2 scale s. PML's NCALoss leaves anchors
    without positives out of the mean; here they add 0.
    """
    logits = 2 * scale * pairs.sim
    return softmax_loss(logits, pairs).mean()
