"""`mltool list`: what can stand behind --loss, --pooling and the like."""

from typing import Annotated

import typer

from mltool import components
from mltool.errors import UsageError
from mltool.options import Json


def list_components(
    family: Annotated[
        str | None, typer.Argument(help="losses, miners, poolings, ...; without: the families.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List components with formula, settings and paper."""
    if family is None:
        print(
            "\n".join(
                f"{name}: {', '.join(components.names(name))}" for name in components.families()
            )
        )
        return
    if family not in components.families():
        near = components.suggest(family, components.families())
        known = ", ".join(components.families())
        raise UsageError(f"no family {family!r}{near} (there are: {known})")
    found = [components.describe(family, name) for name in components.names(family)]
    print(_as_json(found) if json else "\n\n".join(_as_text(component) for component in found))


def _as_text(component: components.Component) -> str:
    lines = [f"{component.name}: {component.summary}", component.formula]
    if component.settings:
        shown = ", ".join(_setting(setting) for setting in component.settings)
        lines.append(f"settings: {shown}")
    lines.append(component.paper)
    return "\n    ".join(line for line in lines if line)


def _setting(setting: components.Setting) -> str:
    choices = f" ({'|'.join(setting.choices)})" if setting.choices else ""
    return f"{setting.name}={components.written(setting.default)}{choices}"


def _as_json(found: list[components.Component]) -> str:
    import json

    def plain(component: components.Component) -> dict[str, object]:
        settings = {s.name: s.default for s in component.settings}
        keys = ("name", "summary", "formula", "paper")
        return {key: getattr(component, key) for key in keys} | {"settings": settings}

    return json.dumps([plain(component) for component in found], indent=2, ensure_ascii=False)
