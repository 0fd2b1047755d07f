"""What joins losses on pairs: a miner, a memory and mixed examples, and which losses take them.

All of it follows from what component files declare, so that it is said before anything heavy is
imported. Every function that refuses raises UsageError.
"""

from collections.abc import Sequence

from mltool import components
from mltool.components import Choice
from mltool.errors import UsageError
from mltool.options.choices import Positives, choose_pairing, has_pairs, is_transfer


def refuse_candidates(
    losses: Sequence[Choice], *, positives: Positives, symmetric: bool, has_tuples: bool
) -> None:
    """Refuse losses that the teacher's vectors, or tuples, cannot be the candidates of."""
    for loss in filter(has_pairs, losses):
        if loss.declared.square and (has_tuples or not symmetric):
            remedy = "leave out --mining" if has_tuples else "say --symmetric"
            raise UsageError(f"{explain_fixed_sides(loss)}; {remedy}")
        if symmetric and choose_pairing(loss, positives).positives != "class":
            raise UsageError(
                f"--loss {loss.alias or loss.name}: with --symmetric an image would be its own "
                "positive; use --positives class"
            )


def refuse_mined(basis: str, losses: Sequence[Choice]) -> None:
    """Refuse losses that cannot take the pairs that a basis mines, and a basis that is none."""
    name = components.parse("bases", basis).name
    for loss in losses:
        reason = explain_fixed_sides(loss)
        if loss.declared.has_proxies:
            reason = f"{loss.name} compares images with proxies of classes"
        if reason:
            raise UsageError(
                f"--basis {name} hands over pairs, but {reason}; give the unlabelled images a loss "
                "that takes them, such as --unlabeled-loss contrastive"
            )


def refuse_additions(
    losses: Sequence[Choice],
    *,
    miner: str | None,
    memory: int | None,
    mixup: str | None,
    symmetric: bool,
) -> None:
    """Refuse a miner, a memory or a mixup that the losses have no use for."""
    if miner is not None:
        _refuse_miner(losses, miner, symmetric=symmetric, has_memory=memory is not None)
    if memory is not None:
        _refuse_closed(losses, "--memory")
        if not any(map(has_pairs, losses)):
            raise UsageError("--memory has no place here: all candidates are proxies")
    if mixup is not None:
        _refuse_closed(losses, "--mixup")
        for loss in losses:
            if reason := explain_no_mixup(loss, mixup, symmetric=symmetric):
                raise UsageError(f"--mixup has no place here: {reason}")


def _refuse_miner(
    losses: Sequence[Choice], text: str, *, symmetric: bool, has_memory: bool
) -> None:
    miner = components.parse("miners", text)
    if not any(has_pairs(loss) and _has_negatives(loss) for loss in losses):
        raise UsageError(
            f"--miner {miner.name} has nothing to choose from: no loss has batch pairs"
        )
    if miner.declared.square and not symmetric:
        raise UsageError(
            f"--miner {miner.name} has no place here: it needs a whole batch of the student's "
            "vectors; say --symmetric"
        )
    if miner.declared.square and has_memory:
        raise UsageError(
            f"--memory has no place beside --miner {miner.name}: it needs a whole batch"
        )


def _refuse_closed(losses: Sequence[Choice], option: str) -> None:
    """Refuse an option of further candidates where a loss takes none."""
    paired = [loss for loss in losses if not is_transfer(loss)]
    if not paired:
        raise UsageError(f"{option} has no place here: no --loss compares pairs")
    for loss in paired:
        reason = explain_fixed_sides(loss)
        if has_pairs(loss) and not _has_negatives(loss):
            reason = f"{loss.alias} compares an image with its own vector of the teacher alone"
        if reason:
            raise UsageError(f"{option} has no place here: {reason}; use another --loss")


def _has_negatives(loss: Choice) -> bool:
    return choose_pairing(loss, "class").has_negatives


def explain_fixed_sides(loss: Choice) -> str:
    """Return why no other candidates may join those of a loss, or an empty string."""
    if loss.declared.takes_vectors:
        return f"{loss.name} takes the vectors of the batch, not pairs"
    if loss.declared.square:
        return f"{loss.name} compares every image of the batch with every other one"
    return ""


def explain_no_mixup(loss: Choice, text: str, *, symmetric: bool) -> str:
    """Return why a loss has no mixed examples of this level, or an empty string."""
    name, declared = loss.name, loss.declared
    mixup = components.load("mixups", text)()
    if is_transfer(loss):
        return ""
    if reason := explain_fixed_sides(loss):
        return reason
    if declared.proxies_per_class:
        return f"{name} takes several proxies of a class together, not mixes of them"
    if mixup.stage is None:
        return ""
    if has_pairs(loss) and not symmetric:
        return (
            f"the candidates of {name} are the teacher's vectors, which only --mixup embedding can "
            "mix; with --symmetric they are the student's"
        )
    if declared.candidates == "proxies":
        return f"the candidates of {name} are proxies, which only --mixup embedding can mix"
    if declared.anchors == "proxies" and "anchor-neg" in mixup.kinds:
        return f"the anchors of {name} are proxies; only --mixup embedding mixes one with images"
    return ""
