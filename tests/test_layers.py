"""Who may import whom: a module imports from layers above its own, siblings in its own folder."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mltool"
LAYERS = {
    0: [
        "errors",
        "options",
        "training_options",
        "components",
        "settings",
        "progress",
        "processors",
        "__init__",
    ],
    1: ["files"],
    2: ["exact", "datasets", "clusterers", "retrieval"],
    3: [
        "losses",
        "transfers",
        "miners",
        "mixups",
        "poolings",
        "attentions",
        "augmentations",
        "transforms",
        "distributed",
    ],
    4: ["models", "pretexts", "engine"],
    5: ["commands"],
    6: ["signatures", "cli", "__main__"],
}
# inside one layer only these pairs, and everything inside one folder
NEIGHBOURS = {
    "components": {"errors", "settings"},
    "options": {"errors", "components"},
    "training_options": {"options"},
    "distributed": {"errors"},
    "augmentations": {"transforms"},
    "miners": {"losses"},
    "datasets": {"exact"},
    "clusterers": {"exact"},
    "retrieval": {"exact", "datasets", "clusterers"},
    "engine": {"models", "pretexts"},
    "cli": {"signatures"},
    "__main__": {"cli"},
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
HEAVY = {"torch", "torchvision", "timm"}
MODULES = sorted(ROOT.rglob("*.py"))


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(module, at top level) of every import; `from a import b` counts as `a.b` too."""
    tree = ast.parse(path.read_text())
    inside = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef) or (isinstance(block, ast.If) and for_types(block))
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", node not in inside) for alias in node.names]
    return found


def for_types(block: ast.If) -> bool:
    """Whether a block is there for the type checker only."""
    return ast.unparse(block.test) == "TYPE_CHECKING"


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_layers_above(path: Path) -> None:
    own = part_of(path)
    layer = LAYER_OF[own]
    for name, at_top in imports_of(path):
        parts = name.split(".")
        if layer <= 2 and parts[0] in HEAVY:
            allowed = own == "exact" and not at_top
            assert allowed, f"imports {name}"
        if parts[0] != "mltool" or name == "mltool.__version__":
            continue
        other = parts[1]
        if other == own:
            continue
        above = LAYER_OF[other] < layer or other in NEIGHBOURS.get(own, ())
        assert above, f"imports {name} from its own layer or below"
        if own == "signatures":
            assert not at_top or LAYER_OF[other] == 0, f"imports {name} outside the function"
        if layer == 3 and LAYER_OF[other] < 3:
            assert other in ("errors", "settings"), f"imports {name}"
        private = [p for p in parts[2:] if p.startswith("_")]
        assert not private, f"imports {name}, private to another folder"


def test_every_module_has_a_layer() -> None:
    parts = {part_of(path) for path in MODULES}
    assert parts <= LAYER_OF.keys()


def test_the_files_are_small() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert not {path: n for path, n in lengths.items() if n > 400}
