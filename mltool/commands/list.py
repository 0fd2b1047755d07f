"""The work of `mltool list`: what can stand behind --loss, --pooling and the like."""

import json as json_files

from mltool import components
from mltool.errors import UsageError


def run(family: str | None = None, *, json: bool = False) -> None:
    """Print the components of a family, without one the families. Raises UsageError."""
    families = components.families()
    if family is None:
        print("\n".join(f"{name}: {', '.join(components.names(name))}" for name in families))
        return
    if family not in families:
        near = components.suggest(family, families)
        raise UsageError(f"no family {family!r}{near} (there are: {', '.join(families)})")
    members = [components.describe(family, name) for name in components.names(family)]
    print(_as_json(members) if json else "\n\n".join(map(_as_text, members)))


def _as_text(component: components.Component) -> str:
    lines = [f"{component.name}: {component.summary}", component.formula]
    if component.settings:
        lines.append(f"settings: {', '.join(map(_describe_setting, component.settings))}")
    lines.append(component.paper)
    return "\n    ".join(line for line in lines if line)


def _describe_setting(setting: components.Setting) -> str:
    choices = f" ({'|'.join(setting.choices)})" if setting.choices else ""
    return f"{setting.name}={components.write_value(setting.default)}{choices}"


def _as_json(members: list[components.Component]) -> str:
    keys = ("name", "summary", "formula", "paper")
    records = [
        {key: getattr(component, key) for key in keys}
        | {"settings": {setting.name: setting.default for setting in component.settings}}
        for component in members
    ]
    return json_files.dumps(records, indent=2, ensure_ascii=False)
