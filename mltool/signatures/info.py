"""`mltool info`: what a file holds and how it was made."""

from typing import Annotated

import typer

from mltool.options import Json


def info(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", show_default=False)],
    *,
    history: Annotated[
        bool, typer.Option("--history", help="The shell lines that made it, oldest first.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what files hold; with --history, the commands that made them."""
    from mltool.files import canonical_json
    from mltool.files import history as histories
    from mltool.files.describe import read_facts

    for path in files:
        if history:
            steps = histories.read(path)
            lines = histories.shell_lines(steps, output=path)
            print(
                canonical_json.to_json(list(steps)) if json else "\n".join(lines or ["no history"])
            )
            continue
        found = read_facts(path)
        if json:
            print(canonical_json.to_json({"file": path, **found}))
        else:
            print(path)
            print(
                "\n".join(
                    f"  {key.replace('_', ' ')}: {_shown(value)}" for key, value in found.items()
                )
            )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
