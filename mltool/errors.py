"""The errors a user can cause or meet, each with the exit code of the process.

A message is one sentence that names the file or option and the remedy; what it quotes from files
is escaped. Every other exception is a bug and ends with a traceback (exit code 1).
"""


class MltoolError(Exception):
    """Shown to the user as one line; `exit_code` becomes the status of the process."""

    exit_code = 1


class UsageError(MltoolError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class SkippedInputs(MltoolError):
    """The output is complete but for inputs that were left out under `skip`."""

    exit_code = 3


class NumericError(MltoolError):
    """A loss or vector of the run is not finite, or all embeddings collapsed to one point."""

    exit_code = 4


class InputError(MltoolError):
    """An input is missing, damaged, hostile, of the wrong format, or does not match another."""

    exit_code = 5


class NotFiniteError(InputError):
    """NaN or infinite values among input vectors."""


class ResourceError(MltoolError):
    """Disk, memory or output is not available."""

    exit_code = 6


class Interrupted(MltoolError):
    """Stopped by a signal after saving; the same command with `--resume` goes on."""

    exit_code = 75


def escape(text: str) -> str:
    """Return the text with invisible characters escaped, so that no terminal obeys them."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
