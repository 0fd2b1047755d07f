"""`mltool pack`: an image list and its images as one file."""

from typing import Annotated

import typer

from mltool.options import (
    Classes,
    Data,
    DryRun,
    Labels,
    Limit,
    OnBadImage,
    Output,
    Root,
    Split,
    Workers,
)


def pack(
    data: Data,
    output: Output,
    *,
    size: Annotated[
        int | None,
        typer.Option("--size", help="Shrink to this shorter side, as JPEG."),
    ] = None,
    quality: Annotated[int, typer.Option("--quality", help="Of the shrunk JPEGs, 1 to 95.")] = 95,
    split: Split = None,
    classes: Classes = None,
    labels: Labels = None,
    limit: Limit = None,
    root: Root = None,
    on_bad_image: OnBadImage = "error",
    workers: Workers = None,
    dry_run: DryRun = False,
) -> None:
    """Pack images into one .h5 file, for file systems that hate many small files."""
    import logging

    from mltool.datasets import open_data
    from mltool.errors import SkippedInputs
    from mltool.files import atomic, history, pack_writer
    from mltool.processors import usable_cores

    say = logging.getLogger("mltool")
    manifest = open_data(data, split=split, classes=classes, limit=limit, labels=labels, root=root)
    say.info("pack: %s", manifest.summary())
    if dry_run:
        return
    step = history.record(
        "pack",
        inputs=history.list_inputs("data", data, manifest.digest()),
        settings={"size": size, "quality": quality, "split": split, "classes": classes,
                  "limit": limit, "on_bad_image": on_bad_image},
        counts={"images": len(manifest)},
    )  # fmt: skip
    atomic.refuse_inputs(output, data)
    with atomic.claim(output):
        packed = pack_writer.write(
            output,
            manifest,
            size=size,
            quality=quality,
            history=history.extend(*history.read_all(data), record=step),
            on_bad_image="error" if on_bad_image == "error" else "skip",
            workers=workers or usable_cores(),
        )
    for reason in packed.skipped:
        say.warning("left out: %s", reason)
    say.info("wrote %s: %d images, %.1f MB", output, packed.images, packed.bytes / 1e6)
    if packed.skipped and on_bad_image == "skip":
        raise SkippedInputs(f"{len(packed.skipped)} images could not be read and were left out")
