"""Components are found by file name: `--loss multi-similarity` is `losses/multi_similarity.py`.

A component file holds one public function, or one public class whose name is the file's in
CamelCase. Keyword-only arguments with literal defaults are its settings
(`multi-similarity:alpha=2,beta=40`): whole numbers are 1 or more, `Positive` ones above 0, none is
infinite. Keyword-only arguments without a default are facts of the run (`channels`, `dim`,
`classes`, `images`) that `load` passes by name. Signatures and docstrings are read with `ast`, so
listing, checking and completing import nothing.
"""

import ast
import difflib
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mltool.errors import UsageError
from mltool.settings import READERS, finite, wanted

ROOT = Path(__file__).parent
FAMILIES = (
    "attentions",
    "augmentations",
    "clusterers",
    "datasets",
    "losses",
    "miners",
    "mixups",
    "poolings",
    "pretexts",
    "transfers",
)

Value = bool | int | float | str | tuple[float, ...] | None


@dataclass(frozen=True)
class Setting:
    """One keyword-only argument of a component."""

    name: str
    type: str
    default: Value
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """What can be said about a component without importing it."""

    family: str
    name: str
    summary: str  # first line of the docstring
    formula: str  # second paragraph of the docstring, on one line
    paper: str  # first line of the module docstring
    settings: tuple[Setting, ...]
    context: tuple[str, ...]  # arguments that the caller passes by name
    is_class: bool
    symbol: str


def names(family: str) -> list[str]:
    """The components of a family, sorted, as they are written in the shell."""
    files = (ROOT / family).glob("*.py")
    return sorted(f.stem.replace("_", "-") for f in files if not f.stem.startswith("_"))


def complete(text: str, *families: str) -> list[tuple[str, str]]:
    """How the beginning of a component's text may go on, and what that is."""
    name, colon, settings = text.partition(":")
    found = [describe(family, each) for family in families for each in names(family)]
    if not colon:
        return [(each.name, each.summary) for each in found if each.name.startswith(name)]
    before, comma, last = settings.rpartition(",")
    begun = f"{name}:{before}{comma}"
    return [
        (f"{begun}{setting.name}=", f"{wanted(setting.type)}, {written(setting.default)}")
        for each in found
        for setting in each.settings
        if each.name == name and setting.name.startswith(last)
    ]


def families() -> list[str]:
    """The families that `mltool list` knows, sorted."""
    return [family for family in FAMILIES if names(family)]


@functools.cache
def describe(family: str, name: str) -> Component:
    """Read one component's signature and docstrings. Raises UsageError for an unknown name."""
    stem = name.replace("-", "_").replace("+", "_")
    path = ROOT / family / f"{stem}.py"
    if stem.startswith("_") or not stem.isidentifier() or not path.is_file():
        raise _unknown("component", name, names(family), family)
    module = ast.parse(path.read_text(encoding="utf-8"))
    node = _public_definition(module, stem)
    function = _initializer(node) if isinstance(node, ast.ClassDef) else node
    keywords = list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    text = (ast.get_docstring(node) or "").split("\n\n")
    return Component(
        family=family,
        name=stem.replace("_", "-"),
        summary=" ".join(text[0].split()),
        formula=" ".join(text[1].split()) if len(text) > 1 else "",
        paper=(ast.get_docstring(module) or "").split("\n")[0],
        settings=tuple(_setting(arg, default) for arg, default in keywords if default is not None),
        context=tuple(arg.arg for arg, default in keywords if default is None),
        is_class=isinstance(node, ast.ClassDef),
        symbol=node.name,
    )


def parse(family: str, text: str) -> tuple[Component, dict[str, Value]]:
    """Split `name:key=value,key=value` and check every setting without importing the component."""
    name, _, rest = text.partition(":")
    component = describe(family, name)
    known = {setting.name: setting for setting in component.settings}
    values: dict[str, Value] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        key = key.strip().replace("-", "_")
        if key not in known:
            raise _unknown("setting", key, list(known), f"{family} {component.name}")
        if not equals:
            raise UsageError(f"{component.name}: setting {key!r} needs a value, as in {key}=...")
        values[key] = _convert(component, known[key], value.strip())
    return component, values


def resolved(family: str, text: str) -> str:
    """The canonical text of a component with all its settings, for provenance."""
    component, values = parse(family, text)
    given = {s.name: values.get(s.name, s.default) for s in component.settings}
    settings = ",".join(f"{key}={written(value)}" for key, value in given.items())
    return f"{component.name}:{settings}" if settings else component.name


def load(family: str, text: str, **context: object) -> Callable:
    """Import a component and bind its settings.

    A function comes back with its settings bound (call it with its positional arguments); a class
    comes back as an instance. Of `context` a component gets what it asks for by name.
    """
    component, values = parse(family, text)
    module = importlib.import_module(f"mltool.{family}.{component.name.replace('-', '_')}")
    missing = [key for key in component.context if key not in context]
    if missing:
        raise UsageError(f"{component.name} needs {', '.join(missing)}, not known for this command")
    arguments = values | {key: context[key] for key in component.context}
    target = getattr(module, component.symbol)
    return target(**arguments) if component.is_class else functools.partial(target, **arguments)


def module_of(family: str, text: str) -> object:
    """The module of a component, for the constants that a family declares (`ANCHORS`, `NEEDS`)."""
    component, _ = parse(family, text)
    return importlib.import_module(f"mltool.{family}.{component.name.replace('-', '_')}")


def suggest(word: str, known: list[str]) -> str:
    """`; did you mean X?` when a known word is near, else an empty string."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _unknown(kind: str, word: str, known: list[str], where: str) -> UsageError:
    choices = ", ".join(known) if known else "none"
    return UsageError(f"no {kind} {word!r} in {where}{suggest(word, known)} (there are: {choices})")


def _public_definition(module: ast.Module, stem: str) -> ast.FunctionDef | ast.ClassDef:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == stem:
            return node
        if isinstance(node, ast.ClassDef) and node.name.lower() == stem.replace("_", ""):
            return node
    raise AssertionError(f"{stem}.py defines neither {stem}() nor its class in CamelCase")


def _initializer(node: ast.ClassDef) -> ast.FunctionDef:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item
    empty = ast.parse("def __init__(self): ...").body[0]
    assert isinstance(empty, ast.FunctionDef)
    return empty


def _setting(arg: ast.arg, default: ast.expr) -> Setting:
    annotation = arg.annotation
    choices: tuple[str, ...] = ()
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = tuple(str(c) for c in _as_tuple(ast.literal_eval(annotation.slice)))
    kind = ast.unparse(annotation) if annotation is not None else "str"
    return Setting(arg.arg, "choice" if choices else kind, ast.literal_eval(default), choices)


def _as_tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _convert(component: Component, setting: Setting, text: str) -> Value:
    try:
        if setting.choices:
            if text not in setting.choices:
                raise ValueError
            return text
        if setting.type.startswith("tuple"):
            return tuple(finite(part) for part in text.split("+"))
        if setting.type == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if text.lower() == "none" and "None" in setting.type:
            return None
        return READERS[setting.type.split(" |")[0]](text)
    except (ValueError, KeyError):
        words = " or ".join(setting.choices) if setting.choices else wanted(setting.type)
        raise UsageError(
            f"{component.name}: {setting.name}={text} is not valid, it takes {words}"
        ) from None


def written(value: Value) -> str:
    if isinstance(value, tuple):
        return "+".join(f"{v:g}" for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
