"""Wu, Manmatha, Smola, Krähenbühl, Sampling Matters in Deep Embedding Learning, ICCV 2017."""

import torch

from mltool.losses import Pairs, distance


def distance_weighted(
    pairs: Pairs,
    *,
    dim: int,
    generator: torch.Generator,
    cutoff: float = 0.5,
    farthest: float = 1.4,
    negatives: int | None = None,
) -> Pairs:
    """Draw negatives so that all distances to the anchor come up equally often.

    P(n) ~ 1 / q(max(D_an, cutoff)) where D_an < farthest, else 0;
    log q(D) = (dim - 2) log D + (dim - 3) / 2 log(1 - D^2 / 4)

    Args:
        pairs: [A, B]; all positives are kept.
        dim: length of the vectors, on which the spread of the distances of random vectors depends.
            At 512 the nearest admissible negative is drawn nearly always.
        generator: on the CPU.
        cutoff: nearer negatives are drawn as if they were this far.
        farthest: negatives from here on are never drawn, as the margin loss would be 0 there.
        negatives: draws for each anchor, with replacement; as many as it has positives if none is
            given. A negative drawn twice weighs twice.

    An anchor whose negatives are all too far draws evenly among them. PML's DistanceWeightedMiner
    scales by the largest weight of the batch before it applies `farthest`, which in high dimension
    can leave not one anchor; here each row is scaled by its largest weight afterwards.
    """
    sim = pairs.sim.detach()
    dist = distance(sim).clamp(min=cutoff)
    log_q = (dim - 2) * dist.log() + (dim - 3) / 2 * (1 - dist.square() / 4).log()
    near = (pairs.neg > 0) & (dist < farthest)
    # -inf before the softmax: far pairs, where 1 / q is large again, must not set the scale
    chance = torch.where(near, -log_q, -torch.inf).softmax(dim=1)
    even = torch.where((pairs.neg > 0).any(dim=1, keepdim=True), pairs.neg > 0, True)
    chance = torch.where(near.any(dim=1, keepdim=True), chance, even.to(chance.dtype))
    if negatives is None:
        draws = (pairs.pos > 0).sum(dim=1, keepdim=True)
    else:
        draws = torch.full((len(sim), 1), negatives, device=sim.device)
    most = max(int(draws.max()), 1)
    drawn = torch.multinomial(chance.cpu(), most, replacement=True, generator=generator)
    drawn = drawn.to(sim.device)
    counts = torch.arange(most, device=sim.device) < draws
    times = torch.zeros_like(sim).scatter_add(1, drawn, counts.to(sim.dtype))
    return pairs._replace(neg=pairs.neg * times)
