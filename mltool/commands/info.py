"""The work of `mltool info`: what files hold and how they were made."""

from collections.abc import Iterable, Mapping

from mltool.files import canonical_json
from mltool.files import history as histories
from mltool.files.describe import read_facts
from mltool.options.group import list_unwritten


def run(
    files: list[str],
    *,
    history: bool = False,
    json: bool = False,
    groups: Mapping[str, Iterable[type]] | None = None,
) -> None:
    """Print what each file holds, or with `history` the commands that made it.

    `groups` are the groups of options of each command as they are now: where a record leaves out a
    value that is no longer the default, its shell line says it. Raises InputError.
    """
    for path in files:
        if history:
            print(_describe_history(path, groups or {}, json=json))
        else:
            print(_describe(path, json=json))


def _describe_history(path: str, groups: Mapping[str, Iterable[type]], *, json: bool) -> str:
    steps = histories.read(path)
    if json:
        return canonical_json.to_json(list(steps))
    lines = histories.shell_lines(
        steps,
        output=path,
        unwritten=lambda name, settings: list_unwritten(groups.get(name, ()), settings),
    )
    return "\n".join(lines or ["no history"])


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
