"""The work of `mltool info`: what files hold and how they were made."""

from mltool.files import canonical_json
from mltool.files import history as histories
from mltool.files.describe import read_facts


def run(files: list[str], *, history: bool = False, json: bool = False) -> None:
    """Print what each file holds, or with `history` the commands that made it.

    Raises InputError.
    """
    for path in files:
        print(_describe_history(path, json=json) if history else _describe(path, json=json))


def _describe_history(path: str, *, json: bool) -> str:
    steps = histories.read(path)
    if json:
        return canonical_json.to_json(list(steps))
    return "\n".join(histories.shell_lines(steps, output=path) or ["no history"])


def _describe(path: str, *, json: bool) -> str:
    contents = read_facts(path)
    if json:
        return canonical_json.to_json({"file": path, **contents})
    lines = [f"  {key.replace('_', ' ')}: {_as_text(value)}" for key, value in contents.items()]
    return "\n".join([path, *lines])


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
