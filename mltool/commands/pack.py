"""The work of `mltool pack`: an image list and its images as one file."""

import logging

from mltool.commands.selected_data import open_selected
from mltool.errors import SkippedInputs
from mltool.files import atomic, history, pack_writer
from mltool.files.manifest import Manifest
from mltool.options.group import list_recorded
from mltool.options.lists import ListOptions
from mltool.options.packing import PackOptions
from mltool.processors import usable_cores

logger = logging.getLogger(__name__)


def run(
    data: list[str],
    output: str,
    *,
    options: PackOptions = PackOptions(),
    lists: ListOptions = ListOptions(),
) -> None:
    """Pack the images of the lists `data` into `output`.

    Raises SkippedInputs at the end when images were left out, UsageError, InputError and
    ResourceError.
    """
    manifest = open_selected(data, lists)
    logger.info("pack: %s", manifest.summary())
    if options.dry_run:
        return
    atomic.refuse_inputs(output, data)
    with atomic.claim(output):
        packed = pack_writer.write(
            output,
            manifest,
            size=options.size,
            quality=options.quality,
            history=_history(data, manifest, options, lists),
            on_bad_image="error" if options.on_bad_image == "error" else "skip",
            workers=options.workers or usable_cores(),
        )
    for reason in packed.skipped:
        logger.warning("left out: %s", reason)
    logger.info("wrote %s: %d images, %.1f MB", output, packed.images, packed.bytes / 1e6)
    if packed.skipped and options.on_bad_image == "skip":
        raise SkippedInputs(f"{len(packed.skipped)} images could not be read and were left out")


def _history(
    data: list[str], manifest: Manifest, options: PackOptions, lists: ListOptions
) -> history.History:
    step = history.record(
        "pack",
        inputs=history.list_inputs("data", data, manifest.digest()),
        settings=list_recorded(options, lists),
        counts={"images": len(manifest)},
    )
    return history.extend(*history.read_all(data), record=step)
