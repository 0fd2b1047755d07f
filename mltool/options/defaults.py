"""Defaults of options that stand in files: the TOML file of `--config`, and presets below it.

Keys are the long names of options, those of one command in a table named after it. Values that hold
with one component alone stand in a table for it:

    [pretrain]
    epochs = 200

    [pretrain."--method swav"]       # holds with this method, whatever its settings
    method = "swav:prototypes=3000"  # settings that it has unless they are said
    lr = 0.6
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mltool.components import suggest
from mltool.errors import UsageError

PRESETS = Path(__file__).parent.parent / "presets"
NO_PRESET = "none"

Values = dict[str, object]  # by the name of an option's field


@dataclass(frozen=True)
class FileDefaults:
    """What a file says about the options of one command."""

    source: str
    values: Values = field(default_factory=dict)
    cases: dict[str, dict[str, Values]] = field(default_factory=dict)  # by option and component

    def choose(self, stated: Mapping[str, object]) -> Values:
        """Return the values that hold with the components that are `stated` for some options.

        Raises UsageError for a case of an option that takes no component.
        """
        values = dict(self.values)
        for option, cases in self.cases.items():
            text = stated.get(option)
            if text is not None and not isinstance(text, str):
                raise UsageError(f"{self.source}: --{_write_key(option)} has no single component")
            case = cases.get(_strip_settings(text or ""), {})
            values |= {key: value for key, value in case.items() if key != option}
        return values

    def complete(self, stated: Mapping[str, object]) -> Values:
        """Return components that are `stated`, the settings of their cases below those they have.

        Raises UsageError where the case of one component names another.
        """
        return {
            option: self._complete(text, cases.get(_strip_settings(text), {}).get(option, text))
            for option, cases in self.cases.items()
            if isinstance(text := stated.get(option), str)
        }

    def _complete(self, text: str, lower: object) -> str:
        name, _, settings = text.partition(":")
        if not isinstance(lower, str) or _strip_settings(lower) != _strip_settings(text):
            raise UsageError(f"{self.source}: {lower!r} stands among the options for {name}")
        if lower == text:
            return text
        both = ",".join(filter(None, [lower.partition(":")[2], settings]))
        return f"{name}:{both}" if both else name


def read_config(
    path: str, command: str, commands: Collection[str], options: Collection[str]
) -> FileDefaults:
    """Read what a TOML file says about a command. Raises UsageError for what it cannot mean."""
    return _read(Path(path), path, command, commands, options)


def read_preset(
    name: str, command: str, commands: Collection[str], options: Collection[str]
) -> FileDefaults:
    """Read a preset of the package, nothing for `none`. Raises UsageError for an unknown one."""
    if name == NO_PRESET:
        return FileDefaults("no preset")
    names = list_presets()
    if name not in names:
        raise UsageError(
            f"no preset {name!r}{suggest(name, names)} (there are: {', '.join(names)})"
        )
    return _read(PRESETS / f"{name}.toml", f"preset {name}", command, commands, options)


def list_presets() -> list[str]:
    """Return the names of all presets, `none` the last."""
    return [*sorted(path.stem for path in PRESETS.glob("*.toml")), NO_PRESET]


def complete_preset(begun: str) -> list[str]:
    """Return the presets whose name begins so, for a shell that completes a word."""
    return [name for name in list_presets() if name.startswith(begun)]


def _read(
    path: Path, source: str, command: str, commands: Collection[str], options: Collection[str]
) -> FileDefaults:
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{source}: cannot be read as TOML ({error})") from None
    for key, value in table.items():
        if isinstance(value, dict) != (key in commands):
            hint = suggest(key, list(commands)) if isinstance(value, dict) else ""
            what = "a table of no command" if isinstance(value, dict) else "not a table"
            raise UsageError(f"{source}: {key!r} is {what}{hint}")
    shared = {key: value for key, value in table.items() if not isinstance(value, dict)}
    values: Values = {}
    cases: dict[str, dict[str, Values]] = {}
    for key, value in (shared | table.get(command, {})).items():
        if isinstance(value, dict):
            option, component, case = _read_case(key, value, source, command, options)
            cases.setdefault(option, {})[component] = case
        else:
            values[_find_option(key, source, command, options)] = value
    return FileDefaults(source, values, cases)


def _read_case(
    key: str, table: dict, source: str, command: str, options: Collection[str]
) -> tuple[str, str, Values]:
    """Return option, component and values of a table such as `"--method swav"`.

    Raises UsageError for another table.
    """
    flag, _, component = key.partition(" ")
    nested = any(isinstance(value, dict) for value in table.values())
    if nested or not (flag.startswith("--") and component.replace("-", "_").isidentifier()):
        raise UsageError(
            f"{source}: {key!r} is no option; options of one component stand below "
            f'[{command}."--OPTION COMPONENT"]'
        )
    values = {_find_option(name, source, command, options): value for name, value in table.items()}
    return _find_option(flag[2:], source, command, options), component, values


def _find_option(key: str, source: str, command: str, options: Collection[str]) -> str:
    """Return the field of an option by its key. Raises UsageError for an unknown one."""
    name = key.replace("-", "_")
    if name not in options:
        hint = suggest(key, sorted(map(_write_key, options)))
        raise UsageError(f"{source}: {command} has no option {key!r}{hint}")
    return name


def _strip_settings(text: str) -> str:
    return text.partition(":")[0].replace("_", "-")


def _write_key(option: str) -> str:
    return option.replace("_", "-")
