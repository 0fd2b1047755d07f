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
