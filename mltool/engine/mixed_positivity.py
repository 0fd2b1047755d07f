"""How often a mixed example acts as a positive, by how much of a positive is in it.

Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR 2022.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from mltool import components
from mltool.engine.data import Batch
from mltool.engine.objectives import mixing, pair_loss
from mltool.engine.objectives.mixing import Mixture, Originals
from mltool.engine.objectives.pair_loss import Side, Term, pairs_of
from mltool.errors import InputError
from mltool.losses import Pairs
from mltool.mixups import Mixup
from mltool.models.stages import StageHook

SHARES = tuple(n / 10 for n in range(11))  # lambda


@dataclass(frozen=True)
class Curve:
    """Probabilities that d loss / d s(a, v) <= 0, one for each lambda."""

    loss: str
    miner: str | None
    mixup: str
    examples: int  # mixed examples behind each probability
    share: tuple[float, ...]  # lambda
    empirical: tuple[float, ...]
    closed_form: tuple[float, ...] | None  # None where the loss has none


def as_text(curve: Curve) -> str:
    """A table for people."""
    closed = curve.closed_form or (math.nan,) * len(curve.share)
    rows = zip(curve.share, curve.empirical, closed, strict=True)
    lines = [f"{'lambda':<8}{'measured':>10}{'closed form':>14}"]
    for share, measured, by_formula in rows:
        last = "-" if math.isnan(by_formula) else f"{by_formula:.4f}"
        lines.append(f"{share:<8.1f}{measured:>10.4f}{last:>14}")
    how = [f"{curve.examples:,} mixed examples", curve.loss, curve.miner, curve.mixup]
    lines.append("\n" + "; ".join(part for part in how if part))
    return "\n".join(lines)


def measure(
    model: nn.Module,
    batches: Iterable[Batch],
    term: Term,
    mixup: Mixup,
    *,
    loss: str,
    level: str,
    seed: int,
    miner: str | None = None,
) -> Curve:
    """The curve of a model, in evaluation mode, over batches of class indices.

    What is mixed is drawn as in training, among the pairs of `miner`, lambda alone is set. Each
    anchor's examples enter the loss together.
    """
    generator = Generator().manual_seed(seed)
    miner = miner if term.minable else None
    sims: list[list[Tensor]] = [[] for _ in SHARES]
    pulled: list[list[Tensor]] = [[] for _ in SHARES]
    for batch in batches:
        with torch.no_grad():
            tap = StageHook(mixup.stage) if mixup.stage is not None else None
            vectors = model(batch.images, tap=tap)
            anchors, candidates = term.standing(Side(vectors, batch.labels))
            pairs = pairs_of(anchors, candidates)
            chosen = pair_loss.miner(miner, dim=vectors.shape[1], generator=generator)
            pairs = chosen(pairs) if chosen is not None else pairs
            mixture = mixing.draw(pairs, mixup, own=None, generator=generator)
        originals = None
        if tap is not None and tap.seen is not None:
            originals = Originals(tap.seen, tap.stage, batch.stacked()[:1], model)
        there = mixture.pos + mixture.neg > 0
        for number, share in enumerate(SHARES):
            mixed = _mixed(mixture, share, pairs, anchors, candidates, originals)
            gradient = _gradient(term, mixed, anchors)
            sims[number].append(mixed.sim[there].cpu())
            pulled[number].append((gradient <= 0)[there].cpu())
    joined = [torch.cat(parts).numpy() for parts in sims]
    if not len(joined[0]):
        raise InputError("no image has both positives and negatives in its batch; nothing to mix")
    limits = [threshold(loss, share) for share in SHARES]
    closed = [
        float(np.mean(s <= limit))
        for s, limit in zip(joined, limits, strict=True)
        if limit is not None
    ]
    return Curve(
        loss=loss,
        miner=miner,
        mixup=level,
        examples=len(joined[0]),
        share=SHARES,
        empirical=tuple(float(torch.cat(parts).double().mean()) for parts in pulled),
        closed_form=tuple(closed) or None,
    )


def _mixed(
    mixture: Mixture,
    share: float,
    pairs: Pairs,
    anchors: Side,
    candidates: Side,
    originals: Originals | None,
) -> Pairs:
    """The mixed pairs with one lambda, in float64: small slopes must not vanish."""
    there = (mixture.pos + mixture.neg > 0).to(mixture.pos)
    set_to = mixture._replace(
        share=torch.full_like(mixture.share, share), pos=share * there, neg=(1 - share) * there
    )
    with torch.no_grad():
        mixed = mixing.realised(set_to, pairs, anchors, candidates, originals)
    return Pairs(*(matrix.double() for matrix in mixed))


def _gradient(term: Term, pairs: Pairs, anchors: Side) -> Tensor:
    sim = pairs.sim.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(term(pairs._replace(sim=sim), anchors), sim)
    return gradient


def threshold(loss: str, share: float) -> float | None:
    """The similarity up to which a mixed example is pulled, None where there is no closed form.

    multi-similarity, proxy-anchor and binomial-deviance:form=set: m + ln(lambda / (1 - lambda)) /
    (alpha + beta), exact for one mixed example of an anchor in the first; contrastive: any from
    lambda = 1/2 on, below it the similarity at the margin.
    """
    choice = components.parse("losses", loss)
    settings = dict(choice.settings)
    number = {key: float(v) for key, v in settings.items() if isinstance(v, int | float)}
    if share in (0.0, 1.0):
        odds = math.copysign(math.inf, share - 0.5)
    else:
        odds = math.log(share / (1 - share))
    if choice.name == "multi-similarity" or settings.get("form") == "set":
        return number["base"] + odds / (number["alpha"] + number["beta"])
    if choice.name == "proxy-anchor":
        return odds / (2 * number["alpha"])  # its margins cancel out
    if choice.name == "contrastive" and settings["form"] == "similarity":
        return math.inf if share >= 0.5 else number["margin"]
    return None
