"""Heads on cached vectors, `--arch vectors`: what they cannot have, said without torch.

Every function raises UsageError for the first thing that does not fit, with the remedy.
"""

import dataclasses
from collections.abc import Sequence

from mltool import components
from mltool.components import Choice
from mltool.errors import UsageError
from mltool.options.choices import is_transfer
from mltool.options.embedding import EmbedOptions
from mltool.options.group import as_flag, is_changed
from mltool.options.images import ImageOptions
from mltool.options.model import ModelOptions, SourceOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.teacher import TeacherOptions


def refuse_head_options(
    model: ModelOptions,
    objective: ObjectiveOptions,
    images: ImageOptions,
    losses: Sequence[Choice],
    teacher: TeacherOptions | None = None,
) -> None:
    """Refuse what only images have: pixels, weights of a backbone, feature maps, views."""
    changed = _list_changed(images)
    changed += [name for name in ("weights", "pooling") if getattr(model, name) is not None]
    if changed:
        raise UsageError(f"{as_flag(changed[0])} is for images; leave it out for a head on vectors")
    if model.projection == "conv":
        raise UsageError("--projection conv is for feature maps; vectors take linear, the default")
    if objective.mixup and components.parse("mixups", objective.mixup).name == "feature":
        raise UsageError(
            "--mixup feature mixes feature maps, which vectors do not have; --mixup input mixes "
            "the vectors themselves"
        )
    for loss in losses:
        if is_transfer(loss) and (needs := loss.declared.needs & {"maps", "penultimate"}):
            what = "feature maps" if "maps" in needs else "pooled features"
            raise UsageError(
                f"--loss {loss.name} compares {what}, which a head on vectors does not learn; use "
                "a transfer of vectors, such as rkd or relaxed-contrastive"
            )
    if teacher is not None:
        refuse_repeats(teacher)


def refuse_repeats(teacher: TeacherOptions) -> None:
    """Refuse views of a student's input that would all be the same."""
    if teacher.views > 1:
        raise UsageError("--views shows an image several times; a cached vector is always the same")


def refuse_embed_options(options: EmbedOptions, source: SourceOptions) -> None:
    """Refuse what `embed` cannot do with a head."""
    changed = _list_changed(source)
    changed += [name for name in ("views", "on_bad_image") if is_changed(options, name)]
    if changed:
        raise UsageError(
            f"{as_flag(changed[0])} is for images; leave it out with a head on vectors"
        )
    if options.penultimate:
        raise UsageError("--penultimate of a head would be its own input; use that file")


def _list_changed(group: ImageOptions | SourceOptions) -> list[str]:
    return [each.name for each in dataclasses.fields(group) if is_changed(group, each.name)]
