"""The rows of image lists that a command takes by its options."""

from collections.abc import Sequence

from mltool.datasets import open_data
from mltool.files.manifest import Manifest
from mltool.options.lists import ListOptions


def open_selected(
    data: Sequence[str],
    lists: ListOptions,
    *,
    pairs: str | None = None,
    need_split: bool = False,
    of_vectors: bool = False,
) -> Manifest:
    """Open DATA as one image list, its rows selected by `lists`.

    See `datasets.open_data` for the other arguments, and for the errors.
    """
    return open_data(
        data,
        split=lists.split,
        classes=lists.classes,
        limit=lists.limit,
        labels=lists.labels,
        pairs=pairs,
        root=lists.root,
        need_split=need_split,
        of_vectors=of_vectors,
    )
