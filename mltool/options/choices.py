"""Texts of the command line as choices: losses with their short forms, and transfers."""

import dataclasses
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
    known = [*components.names("losses"), *SHORT_FORMS, *transfers]
    if name.replace("_", "-") not in known:
        raise UsageError(
            f"no loss or transfer {name!r}{components.suggest(name, known)} (there are: "
            f"{', '.join(known)})"
        )
    return components.parse("losses", text)


def pairing_of(choice: Choice, positives: Positives) -> ShortForm:
    """Return who counts as what: as the short form says, else as `positives` does."""
    return SHORT_FORMS.get(choice.alias, ShortForm(choice.name, positives))


def is_transfer(text: str) -> bool:
    """Return whether a text names a transfer, going by the name alone."""
    name = text.partition(":")[0].replace("_", "-")
    return name in components.names("transfers")


def has_batch_pairs(text: str) -> bool:
    """Return whether the candidates of a loss can be the teacher's vectors."""
    return parse_loss(text, with_teacher=True).declared.has_batch_pairs


def uses_tuples(text: str, *, symmetric: bool) -> bool:
    """Return whether a loss compares anchors with mined negatives."""
    choice = parse_loss(text, with_teacher=True)
    has_negatives = pairing_of(choice, "class").has_negatives
    return choice.declared.has_batch_pairs and (symmetric or has_negatives)


def needs_labels(text: str, positives: Positives, *, symmetric: bool) -> bool:
    """Return whether a loss needs labels.

    Only `positives="self"` against the teacher does not.
    """
    choice = parse_loss(text, with_teacher=True)
    declared = choice.declared
    self_only = pairing_of(choice, positives).positives == "self" and declared.has_batch_pairs
    return not (self_only and not symmetric) or "labels" in declared.needs


def takes_vectors(text: str) -> bool:
    """Return whether a loss takes the vectors of the batch, not pairs."""
    return parse_loss(text, with_teacher=True).declared.takes_vectors


def transfer_needs(text: str) -> frozenset[str]:
    """Return what a transfer wants besides the vectors."""
    return components.parse("transfers", text).declared.needs


def transfer_takes_raw(text: str) -> bool:
    """Return whether a transfer is published for vectors as long as they are."""
    return components.parse("transfers", text).declared.takes_raw
