"""Components are found by file name: `--loss multi-similarity` is `losses/multi_similarity.py`.

A component file holds one public function, or one public class whose name is the file's in
CamelCase. Keyword-only arguments with literal defaults are its settings
(`multi-similarity:alpha=2,beta=40`): whole numbers are 1 or more, `Natural` ones 0 or more,
`Positive` numbers are above 0, `Fraction` ones from 0 to 1, none is infinite. Keyword-only
arguments without a default are facts of the run (`channels`, `dim`, `classes`, `images`) that
`load` passes by name. Upper-case names at the top of the file are declarations (`Declared`); other
constants begin with an underscore.

Signatures, declarations and docstrings are read with `ast`, so listing, checking and completing
import nothing. `parse` turns a text into a `Choice` once; everything behind the command line reads
that. A component may also be a file of the user: `--loss ./my_loss.py:alpha=2`.
"""

import ast
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from mltool.errors import UsageError
from mltool.settings import READERS, describe_type, finite

ROOT = Path(__file__).parent
FAMILIES = (
    "attentions",
    "augmentations",
    "bases",
    "clusterers",
    "datasets",
    "losses",
    "miners",
    "mixups",
    "parts",
    "poolings",
    "pretexts",
    "transfers",
)
# A model is rebuilt from its checkpoint alone, which must never name code to run.
PACKAGED_ONLY = ("attentions", "datasets", "parts", "poolings")
WEIGHTED = ("losses", "transfers")  # terms of a sum: every one may carry `weight=`

Value = bool | int | float | str | tuple[float, ...] | None


@dataclass(frozen=True)
class Setting:
    """One keyword-only argument of a component."""

    name: str
    type: str
    default: Value
    choices: tuple[str, ...] = ()
    neutral: tuple[Value, ...] = ()  # the value with which it does nothing, if there is one


@dataclass(frozen=True)
class Declared:
    """What a component file declares about itself; the names there are in upper case."""

    anchors: str = "batch"  # losses: who stands in the rows, batch or proxies
    candidates: str = "batch"  # losses: who stands in the columns, batch or proxies
    square: bool = False  # losses, miners: the columns are the rows
    input: str = ""  # losses: pairs or vectors; transfers: unit or raw; "" = the first of these
    needs: frozenset[str] = frozenset()  # labels, maps, index, reference, ...: what else it takes
    library: str = ""  # clusterers: the package whose version and threads decide the last bits
    proxies_per_class: str = ""  # losses: the setting that says how many, "" = one
    reads: str = "maps"  # poolings: maps, tokens or head
    views: int = 2  # pretexts: how many crops of an image a step takes, 0 = two or more
    momentum: bool = False  # pretexts: whether a slowly following copy of the model takes part
    counts: dict[str, tuple[int, int] | int] = field(default_factory=dict, hash=False)  # datasets

    @property
    def has_proxies(self) -> bool:
        """Whether proxies stand on one side of a loss."""
        return "proxies" in (self.anchors, self.candidates)

    @property
    def takes_vectors(self) -> bool:
        """Whether a loss takes the vectors of the batch instead of pairs."""
        return self.input == "vectors"

    @property
    def has_batch_pairs(self) -> bool:
        """Whether a loss compares the batch with candidates that others may stand in for."""
        return not self.has_proxies and not self.takes_vectors

    @property
    def takes_raw(self) -> bool:
        """Whether a transfer is published for vectors as long as they are."""
        return self.input == "raw"


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
    declared: Declared
    is_class: bool
    symbol: str
    path: Path


@dataclass(frozen=True)
class Choice:
    """A component with all its settings, as named on the command line.

    `weight` is what a term counts in its sum. `path` is the file of a component of the user, and
    `digest` that of its bytes. `alias` is the short form that named it, if one did.
    """

    family: str
    name: str
    settings: tuple[tuple[str, Value], ...] = ()
    weight: float = 1.0
    path: str = ""
    digest: str = ""
    alias: str = ""

    def __getitem__(self, setting: str) -> Value:
        return dict(self.settings)[setting]

    @property
    def component(self) -> Component:
        """What the component's file says."""
        return describe(self.family, self.path or self.name)

    @property
    def declared(self) -> Declared:
        """What the component's file declares."""
        return self.component.declared

    @property
    def text(self) -> str:
        """The canonical text, for records: all settings but those that do nothing."""
        neutral = {setting.name: setting.neutral for setting in self.component.settings}
        items = [f"{k}={write_value(v)}" for k, v in self.settings if v not in neutral[k]]
        items += [f"weight={self.weight:g}"] if self.weight != 1.0 else []
        return f"{self.title}:{','.join(items)}" if items else self.title

    @property
    def title(self) -> str:
        """The text without settings; of a file its name and the beginning of its digest."""
        if self.path:
            return f"{Path(self.path).name}@{self.digest[:12]}"
        return self.alias or self.name


def names(family: str) -> list[str]:
    """Return the components of a family, sorted, as they are written in the shell."""
    files = (ROOT / family).glob("*.py")
    return sorted(f.stem.replace("_", "-") for f in files if not f.stem.startswith("_"))


def complete(text: str, *families: str) -> list[tuple[str, str]]:
    """Return how the beginning of a component's text may go on, and what that is."""
    name, colon, settings = text.partition(":")
    members = [describe(family, each) for family in families for each in names(family)]
    if not colon:
        return [(each.name, each.summary) for each in members if each.name.startswith(name)]
    before, comma, last = settings.rpartition(",")
    begun = f"{name}:{before}{comma}"
    return [
        (
            f"{begun}{setting.name}=",
            f"{describe_type(setting.type)}, {write_value(setting.default)}",
        )
        for each in members
        for setting in each.settings
        if each.name == name and setting.name.startswith(last)
    ]


def families() -> list[str]:
    """Return the families that `mltool list` knows, sorted."""
    return [family for family in FAMILIES if names(family)]


def describe(family: str, name: str) -> Component:
    """Read one component's signature, declarations and docstrings; `name` may be a `.py` file.

    Raises UsageError for an unknown name and for a file that is no component.
    """
    if name.endswith(".py") and family not in PACKAGED_ONLY:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"{name}: no such file")
        return _read(family, path, path.stat().st_mtime_ns)
    stem = name.replace("-", "_").replace("+", "_")
    path = ROOT / family / f"{stem}.py"
    if stem.startswith("_") or not stem.isidentifier() or not path.is_file():
        raise _unknown("component", name, names(family), family)
    return _read(family, path, 0)


def parse(family: str, text: str) -> Choice:
    """Read `name:key=value,key=value` and check every setting without importing the component.

    Raises UsageError for an unknown component or setting, and for a value that does not fit.
    """
    name, _, rest = text.partition(":")
    component = describe(family, name)
    settings = {setting.name: setting for setting in component.settings}
    values = {setting.name: setting.default for setting in component.settings}
    weight = 1.0
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        key = key.strip().replace("-", "_")
        if key == "weight" and family in WEIGHTED:
            weight = _weight(text, value)
            continue
        if key not in settings:
            raise _unknown("setting", key, list(settings), f"{family} {component.name}")
        if not equals:
            raise UsageError(f"{component.name}: setting {key!r} needs a value, as in {key}=...")
        values[key] = _convert(component, settings[key], value.strip())
    choice = Choice(family, component.name, tuple(values.items()), weight)
    if component.path.parent == ROOT / family:
        return choice
    digest = hashlib.sha256(component.path.read_bytes()).hexdigest()
    return dataclasses.replace(choice, path=str(component.path), digest=digest)


def load(family: str, selection: str | Choice, **context: object) -> Callable:
    """Import a component and bind its settings.

    A function comes back with its settings bound (call it with its positional arguments); a class
    comes back as an instance. Of `context` a component gets what it asks for by name. Raises
    UsageError for a text that `parse` refuses and for context that is missing.
    """
    choice = parse(family, selection) if isinstance(selection, str) else selection
    component = choice.component
    missing = [key for key in component.context if key not in context]
    if missing:
        raise UsageError(f"{component.name} needs {', '.join(missing)}, not known for this command")
    arguments = dict(choice.settings) | {key: context[key] for key in component.context}
    target = getattr(_import_module(choice), component.symbol)
    return target(**arguments) if component.is_class else functools.partial(target, **arguments)


def suggest(word: str, words: list[str]) -> str:
    """Return `; did you mean X?` when one of the words is near, else an empty string."""
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def write_value(value: Value) -> str:
    """Return the value of a setting as it is written in the shell."""
    if isinstance(value, tuple):
        return "+".join(f"{v:g}" for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _import_module(choice: Choice) -> ModuleType:
    if not choice.path:
        return importlib.import_module(f"mltool.{choice.family}.{choice.name.replace('-', '_')}")
    stem = Path(choice.path).stem
    spec = importlib.util.spec_from_file_location(f"mltool_{choice.family}_{stem}", choice.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _read(family: str, path: Path, changed: int) -> Component:
    """Read a component file; `changed` is when it was, so that an edited one is read again."""
    try:
        module = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as Python ({error})") from None
    node = _public_definition(module, path)
    function = _initializer(node) if isinstance(node, ast.ClassDef) else node
    keywords = list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    text = (ast.get_docstring(node) or "").split("\n\n")
    return Component(
        family=family,
        name=path.stem.replace("_", "-"),
        summary=" ".join(text[0].split()),
        formula=" ".join(text[1].split()) if len(text) > 1 else "",
        paper=(ast.get_docstring(module) or "").split("\n")[0],
        settings=tuple(
            _read_setting(arg, default) for arg, default in keywords if default is not None
        ),
        context=tuple(arg.arg for arg, default in keywords if default is None),
        declared=_read_declarations(module, path),
        is_class=isinstance(node, ast.ClassDef),
        symbol=node.name,
        path=path,
    )


def _read_declarations(module: ast.Module, path: Path) -> Declared:
    """Read the upper-case names of a component file. Raises UsageError for an unknown one."""
    declarable = [each.name.upper() for each in dataclasses.fields(Declared)]
    values: dict[str, object] = {}
    for node in module.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name = target.id if isinstance(target, ast.Name) else ""
            if name.startswith("_") or not name.isupper():
                continue
            if name not in declarable:
                raise UsageError(
                    f"{path}: {name} declares nothing{suggest(name, declarable)} (there are: "
                    f"{', '.join(declarable)}; other constants begin with an underscore)"
                )
            value = ast.literal_eval(node.value)
            values[name.lower()] = frozenset(value) if isinstance(value, set) else value
    return Declared(**values)  # type: ignore[arg-type]


def _unknown(kind: str, word: str, words: list[str], where: str) -> UsageError:
    choices = ", ".join(words) if words else "none"
    return UsageError(f"no {kind} {word!r} in {where}{suggest(word, words)} (there are: {choices})")


def _public_definition(module: ast.Module, path: Path) -> ast.FunctionDef | ast.ClassDef:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == path.stem:
            return node
        if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem.replace("_", ""):
            return node
    raise UsageError(f"{path} defines neither {path.stem}() nor its class in CamelCase")


def _initializer(node: ast.ClassDef) -> ast.FunctionDef:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item
    empty = ast.parse("def __init__(self): ...").body[0]
    assert isinstance(empty, ast.FunctionDef)
    return empty


def _read_setting(arg: ast.arg, default: ast.expr) -> Setting:
    annotation, neutral = arg.annotation, ()
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        annotation, *marks = annotation.slice.elts
        neutral = tuple(ast.literal_eval(mark.args[0]) for mark in marks)  # type: ignore[attr-defined]
    choices: tuple[str, ...] = ()
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = tuple(str(c) for c in _as_tuple(ast.literal_eval(annotation.slice)))
    kind = ast.unparse(annotation) if annotation is not None else "str"
    kind = "choice" if choices else kind
    return Setting(arg.arg, kind, ast.literal_eval(default), choices, neutral)


def _as_tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _weight(text: str, value: str) -> float:
    try:
        return finite(value, above=0)
    except ValueError:
        raise UsageError(f"{text}: weight takes a number above 0") from None


def _convert(component: Component, setting: Setting, text: str) -> Value:
    try:
        if setting.choices:
            if text not in setting.choices:
                raise ValueError
            return text
        if setting.type.startswith("tuple"):
            return tuple(finite(number) for number in text.split("+"))
        if setting.type == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if text.lower() == "none" and "None" in setting.type:
            return None
        return READERS[setting.type.split(" |")[0]](text)
    except (ValueError, KeyError):
        words = " or ".join(setting.choices) if setting.choices else describe_type(setting.type)
        raise UsageError(
            f"{component.name}: {setting.name}={text} is not valid, it takes {words}"
        ) from None
