"""What is mixed with what, where, how much of it, and what it counts."""

from dataclasses import dataclass

from mltool.errors import UsageError

KINDS = ("pos-neg", "pos-pos", "neg-neg", "anchor-neg")


@dataclass(frozen=True)
class Mixup:
    """The settings of a mixup.

    `stage` is where the two examples are mixed: `input`, a stage of the backbone, `last`, or None
    for the embeddings. `pairs` names the two examples, as they stand to the anchor: `pos-neg`,
    `pos-pos`, `neg-neg` or `anchor-neg` (the anchor as its own positive); of several, joined by +,
    each step draws one. An anchor has at most `per_anchor` mixed examples (None: all there can
    be), no two of the same examples: its `hardest` negatives first, or `random` ones, each with a
    positive drawn at random. lambda ~ Beta(alpha, alpha), one for each `pair` or one a `step`.
    The mixed term counts `weight`. In a loss that sums over pairs it weighs the more, the more
    pairs there are.

    Raises UsageError for values out of range.
    """

    stage: str | None
    pairs: str
    negatives: str
    per_anchor: int | None
    alpha: float
    draw: str
    weight: float

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                kinds = ", ".join(KINDS)
                raise UsageError(f"mixup: pairs={self.pairs} is not valid; join some of {kinds}")
        if self.per_anchor is not None and self.per_anchor < 1:
            raise UsageError(f"mixup: per_anchor={self.per_anchor}: it takes 1 or more, or none")
        for name, value in (("alpha", self.alpha), ("weight", self.weight)):
            if not 0 < value < float("inf"):
                raise UsageError(f"mixup: {name}={value:g}: it takes a number above 0")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of pairs, of which each step draws one."""
        return tuple(self.pairs.split("+"))
