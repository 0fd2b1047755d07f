"""The work of `mltool verify`: are files whole and undamaged."""

import logging

from mltool.errors import InputError
from mltool.files.verify import check

logger = logging.getLogger(__name__)


def run(files: list[str], *, full: bool = False) -> None:
    """Check the frame of each file, with `full` every byte. Raises InputError if one fails."""
    broken = 0
    for path in files:
        try:
            print(f"{path}: {check(path, full=full)}, {'undamaged' if full else 'whole'}")
        except InputError as error:
            logger.error("%s", error)
            broken += 1
    if broken:
        raise InputError(f"{broken} of {len(files)} files failed; make them again")
