"""Share of mixed examples that a loss pulls closer, as a function of lambda.

Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR 2022.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from mltool.components import Choice
from mltool.engine.data import Batch
from mltool.engine.objectives import mixing
from mltool.engine.objectives.mixing import MixInputs, Mixture
from mltool.engine.objectives.pair_loss import PairTerm, build_pairs, load_miner
from mltool.engine.objectives.step_outputs import BatchSide, Comparison
from mltool.errors import InputError
from mltool.losses import Pairs
from mltool.mixups import Mixup
from mltool.models.stages import StageHook

LAMBDAS = tuple(n / 10 for n in range(11))


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
    """Format a table for people."""
    closed = curve.closed_form or (math.nan,) * len(curve.share)
    rows = zip(curve.share, curve.empirical, closed, strict=True)
    lines = [f"{'lambda':<8}{'measured':>10}{'closed form':>14}"]
    for share, measured, by_formula in rows:
        last = "-" if math.isnan(by_formula) else f"{by_formula:.4f}"
        lines.append(f"{share:<8.1f}{measured:>10.4f}{last:>14}")
    how = [f"{curve.examples:,} mixed examples", curve.loss, curve.miner, curve.mixup]
    lines.append("\n" + "; ".join(text for text in how if text))
    return "\n".join(lines)


def measure(
    model: nn.Module,
    batches: Iterable[Batch],
    term: PairTerm,
    mixup: Mixup,
    *,
    level: str,
    seed: int,
    miner: Choice | None = None,
) -> Curve:
    """Measure the curve of a model, in evaluation mode, over batches of class indices.

    What is mixed is drawn as in training, among the pairs of `miner`, lambda alone is set. Each
    anchor's examples enter the loss together. Raises InputError if there is nothing to mix.
    """
    generator = Generator().manual_seed(seed)
    miner = miner if term.declared.has_batch_pairs else None
    sims: list[list[Tensor]] = [[] for _ in LAMBDAS]
    pulled: list[list[Tensor]] = [[] for _ in LAMBDAS]
    for batch in batches:
        with torch.no_grad():
            comparison, inputs = _compare(model, batch, term, mixup, miner, generator)
            mixture = mixing.draw_mixture(comparison, mixup, generator=generator)
        exists = mixture.pos + mixture.neg > 0
        for number, lam in enumerate(LAMBDAS):
            mixed = _mix(mixture, lam, comparison, inputs)
            gradient = _differentiate(term, mixed, comparison.anchors)
            sims[number].append(mixed.sim[exists].cpu())
            pulled[number].append((gradient <= 0)[exists].cpu())
    miner_text = miner.text if miner is not None else None
    return _summarize(sims, pulled, loss=term.choice, miner=miner_text, level=level)


def _summarize(
    sims: list[list[Tensor]],
    pulled: list[list[Tensor]],
    *,
    loss: Choice,
    miner: str | None,
    level: str,
) -> Curve:
    """Turn what was measured at each lambda, batch by batch, into probabilities."""
    joined = [torch.cat(batches).numpy() for batches in sims]
    if not len(joined[0]):
        raise InputError("no image has both positives and negatives in its batch; nothing to mix")
    limits = [threshold(loss, lam) for lam in LAMBDAS]
    closed = [
        float(np.mean(s <= limit))
        for s, limit in zip(joined, limits, strict=True)
        if limit is not None
    ]
    return Curve(
        loss=loss.text,
        miner=miner,
        mixup=level,
        examples=len(joined[0]),
        share=LAMBDAS,
        empirical=tuple(float(torch.cat(batches).double().mean()) for batches in pulled),
        closed_form=tuple(closed) or None,
    )


def _compare(
    model: nn.Module,
    batch: Batch,
    term: PairTerm,
    mixup: Mixup,
    miner: Choice | None,
    generator: Generator,
) -> tuple[Comparison, MixInputs | None]:
    """Return the clean pairs of a batch that the miner keeps, and the inputs to mix, if any are."""
    hook = StageHook(mixup.stage) if mixup.stage is not None else None
    vectors = model(batch.inputs, tap=hook)
    anchors, candidates = term.sides(BatchSide(vectors, batch.labels))
    pairs = build_pairs(anchors, candidates)
    if miner is not None:
        select = load_miner(miner, dim=vectors.shape[1], generator=generator)
        pairs = select(pairs, anchors.vectors)
    inputs = None
    if hook is not None and hook.seen is not None:
        inputs = MixInputs(hook.seen, hook.stage, batch.stack_inputs()[:1], model)
    return Comparison(anchors, candidates, pairs), inputs


def _mix(mixture: Mixture, lam: float, comparison: Comparison, inputs: MixInputs | None) -> Pairs:
    """Build the mixed pairs with one lambda, in float64: small slopes must not vanish."""
    exists = (mixture.pos + mixture.neg > 0).to(mixture.pos)
    same = mixture._replace(
        lam=torch.full_like(mixture.lam, lam), pos=lam * exists, neg=(1 - lam) * exists
    )
    with torch.no_grad():
        mixed = mixing.build_mixed_pairs(same, comparison, inputs)
    return Pairs(*(matrix.double() for matrix in mixed))


def _differentiate(term: PairTerm, pairs: Pairs, anchors: BatchSide) -> Tensor:
    """Return the derivative of the loss by each similarity [A, K]."""
    sim = pairs.sim.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(term.weigh(pairs._replace(sim=sim), anchors), sim)
    return gradient


def threshold(loss: Choice, lam: float) -> float | None:
    """Return the similarity up to which a mixed example is pulled, None without a closed form.

    multi-similarity, proxy-anchor and binomial-deviance:form=set: m + ln(lambda / (1 - lambda)) /
    (alpha + beta), exact for one mixed example of an anchor in the first; contrastive: any from
    lambda = 1/2 on, below it the similarity at the margin.
    """
    if loss.path:  # a file of one's own, whatever its name is
        return None
    settings = dict(loss.settings)
    number = {key: float(v) for key, v in settings.items() if isinstance(v, int | float)}
    if lam in (0.0, 1.0):
        odds = math.copysign(math.inf, lam - 0.5)
    else:
        odds = math.log(lam / (1 - lam))
    if loss.name == "multi-similarity" or settings.get("form") == "set":
        return number["base"] + odds / (number["alpha"] + number["beta"])
    if loss.name == "proxy-anchor":
        return odds / (2 * number["alpha"])  # its margins cancel out
    if loss.name == "contrastive" and settings["form"] == "similarity":
        return math.inf if lam >= 0.5 else number["margin"]
    return None
