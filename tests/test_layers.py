"""Who may import whom: a module imports from layers above its own, siblings in its own folder."""

import ast
from pathlib import Path

import pytest
import typer

from mltool.cli import app

ROOT = Path(__file__).parent.parent / "mltool"
LAYERS = {
    0: [
        "errors",
        "settings",
        "processors",
        "progress",
        "components",
        "options",
        "moment",
        "__init__",
    ],
    1: ["files"],
    2: ["exact", "datasets", "clusterers", "retrieval"],
    3: [
        "losses",
        "transfers",
        "miners",
        "mixups",
        "bases",
        "poolings",
        "attentions",
        "parts",
        "augmentations",
        "transforms",
        "distributed",
    ],
    4: ["models", "pretexts", "engine"],
    5: ["commands"],
    6: ["shell", "cli", "__main__"],
}
# inside one layer only these pairs, and everything inside one folder
NEIGHBOURS = {
    "settings": {"errors"},
    "components": {"errors", "settings"},
    "options": {"errors", "components"},
    "distributed": {"errors"},
    "augmentations": {"transforms"},
    "miners": {"losses"},
    "bases": {"losses"},
    "datasets": {"exact"},
    "clusterers": {"exact"},
    "retrieval": {"exact", "datasets", "clusterers"},
    "engine": {"models", "pretexts"},
    "cli": {"shell"},
    "__main__": {"cli"},
}
# commands that never import torch; the others need it for all they do
TORCH_FREE = {
    "cluster_split",
    "concat",
    "dedup",
    "evaluate",
    "index",
    "info",
    "list",
    "pack",
    "plot",
}
TORCH_FREE |= {"pseudolabel", "search", "verify"}
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
        if layer == 6 and at_top:
            assert LAYER_OF[other] in (0, 6), f"imports {name} outside the function"
        if layer == 3 and LAYER_OF[other] < 3:
            assert other in ("errors", "settings"), f"imports {name}"
        private = [p for p in parts[2:] if p.startswith("_")]
        assert not private, f"imports {name}, private to another folder"


@pytest.mark.parametrize("command", sorted(TORCH_FREE))
def test_commands_without_a_model_import_no_torch(command: str) -> None:
    for name, at_top in imports_of(ROOT / "commands" / f"{command}.py"):
        parts = name.split(".")
        other = LAYER_OF[parts[1]] if parts[0] == "mltool" else 0
        heavy = parts[0] in HEAVY or other in (3, 4) or parts[2:3] == ["embed_queries"]
        assert not (heavy and at_top), f"imports {name} at the top"


def test_every_command_has_one_file() -> None:
    shared = {
        "training_data",
        "training_options",
        "training_record",
        "training_setup",
        "teacher_student",
    }
    shared |= {"embed_queries", "heads", "objective", "unlabeled", "__init__"}
    shared |= {"selected_data", "learners"}
    files = {path.stem for path in (ROOT / "commands").glob("*.py")} - shared
    assert files == {name.replace("-", "_") for name in typer.main.get_command(app).commands}


def test_no_function_below_the_commands_takes_all_options() -> None:
    """A group that is the settings of a function may go down; `TrainingOptions` may not."""
    below = [path for path in MODULES if LAYER_OF[part_of(path)] < 5]
    assert not [path for path in below if "TrainingOptions" in path.read_text()]
    for path in below:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and part_of(path) != "options":
                names = [
                    ast.unparse(a.annotation)
                    for a in ast.walk(node.args)
                    if isinstance(a, ast.arg) and a.annotation
                ]
                groups = [name for name in names if name.endswith("Options")]
                assert len(groups) <= 1, f"{path}: {node.name} takes {groups}"


def test_every_module_has_a_layer() -> None:
    parts = {part_of(path) for path in MODULES}
    assert parts <= LAYER_OF.keys()


def test_the_files_are_small() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert not {path: n for path, n in lengths.items() if n > 400}
