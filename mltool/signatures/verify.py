"""`mltool verify`: is a file whole and undamaged."""

from typing import Annotated

import typer

from mltool.errors import InputError


def verify(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", show_default=False)],
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Compare every byte with the digests; else the frame.")
    ] = False,
) -> None:
    """Check files written by mltool; the exit status is the answer."""
    import logging

    from mltool.files.verify import check

    broken = 0
    for path in files:
        try:
            print(f"{path}: {check(path, full=full)}, {'undamaged' if full else 'whole'}")
        except InputError as error:
            logging.getLogger("mltool").error("%s", error)
            broken += 1
    if broken:
        raise InputError(f"{broken} of {len(files)} files failed; make them again")
