"""Texts of the command line as choices: losses with their short forms, and transfers."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mltool import components
from mltool.components import Choice
from mltool.errors import UsageError

Positives = Literal["class", "class+self", "self"]


@dataclass(frozen=True)
class ShortForm:
    """A loss of a student against its teacher's vectors, and which of these vectors count.

    Budnik, Avrithis, Asymmetric Metric Learning for Knowledge Transfer, CVPR 2021.
    """

    loss: str
    positives: Positives
    has_negatives: bool = True


TRAIN_LOSS, STUDENT_LOSS = "multi-similarity", "contrastive+"  # unless others are named

SHORT_FORMS = {
    "contrastive+": ShortForm("contrastive", "class+self"),
    "regression": ShortForm("contrastive", "self", has_negatives=False),
}


def parse_loss(text: str, *, with_teacher: bool = False) -> Choice:
    """Read a `--loss`; `with_teacher` it may be a short form or a transfer too.

    Raises UsageError for an unknown name or setting.
    """
    name, colon, rest = text.partition(":")
    if not with_teacher or name.endswith(".py"):
        return components.parse("losses", text)
    if name in SHORT_FORMS:
        choice = components.parse("losses", SHORT_FORMS[name].loss + colon + rest)
        return dataclasses.replace(choice, alias=name)
    transfers = components.names("transfers")
    if name.replace("_", "-") in transfers:
        return components.parse("transfers", text)
    names = [*components.names("losses"), *SHORT_FORMS, *transfers]
    if name.replace("_", "-") not in names:
        raise UsageError(
            f"no loss or transfer {name!r}{components.suggest(name, names)} (there are: "
            f"{', '.join(names)})"
        )
    return components.parse("losses", text)


def choose_pairing(choice: Choice, positives: Positives) -> ShortForm:
    """Return who counts as what: as the short form says, else as `positives` does."""
    return SHORT_FORMS.get(choice.alias, ShortForm(choice.name, positives))


def parse_losses(texts: Sequence[str] | None, *, with_teacher: bool = False) -> list[Choice]:
    """Read all `--loss` of a command, or its default where there is none. Raises UsageError."""
    default = STUDENT_LOSS if with_teacher else TRAIN_LOSS
    return [parse_loss(text, with_teacher=with_teacher) for text in texts or [default]]


def is_transfer(loss: Choice) -> bool:
    """Return whether a loss compares all that a student makes of a batch with its teacher."""
    return loss.family == "transfers"


def has_pairs(loss: Choice) -> bool:
    """Return whether a loss takes pairs whose candidates may be others than the batch."""
    return not is_transfer(loss) and loss.declared.has_batch_pairs


def needs_of(losses: Sequence[Choice]) -> set[str]:
    """Return what the transfers among some losses want besides the vectors."""
    return {need for loss in losses if is_transfer(loss) for need in loss.declared.needs}


def uses_tuples(loss: Choice, *, symmetric: bool) -> bool:
    """Return whether a loss compares anchors with mined negatives."""
    return has_pairs(loss) and (symmetric or choose_pairing(loss, "class").has_negatives)


def needs_labels(loss: Choice, positives: Positives, *, symmetric: bool) -> bool:
    """Return whether a loss needs classes.

    Neither transfers do, nor an image of the student that is compared with the teacher's vector of
    the same image alone.
    """
    if is_transfer(loss):
        return False
    alone = choose_pairing(loss, positives).positives == "self" and loss.declared.has_batch_pairs
    return not (alone and not symmetric) or "labels" in loss.declared.needs


def is_asymmetric(losses: Sequence[Choice], *, symmetric: bool) -> bool:
    """Return whether the vectors of the student are compared with those of the teacher."""
    return not symmetric and any(map(has_pairs, losses))


def trains_embeddings(loss: Choice) -> bool:
    """Return whether a loss sees the vectors themselves, not only maps or features before them."""
    return not is_transfer(loss) or not loss.declared.needs & {"maps", "penultimate"}
