"""How the text reads: docstrings that begin with a verb, functions that are named by one."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mltool"
MODULES = sorted(ROOT.rglob("*.py"))
# The first word of a function's docstring: the imperative of a verb; one line a letter.
VERBS = """
    Accept Accumulate Add Adjust Allocate Allow Answer Append Apply Ask Assert Assign Attach Average
    Backpropagate Begin Bind Blend Block Bound Break Bring Broadcast Build
    Cache Call Change Check Choose Claim Classify Clear Clip Close Cluster Collect Combine Compare
    Complete Compress Compute Concatenate Continue Convert Copy Count Create Crop Cut
    Decide Declare Decode Delete Derive Describe Detach Detect Discard Distill Divide Download Draw
    Drop
    Embed Emit Encode Encourage End Enter Enumerate Estimate Evaluate Exclude Execute Exit Expand
    Extend Extract
    Fail Feed Fetch Fill Filter Find Finish Fit Flatten Flush Fold Follow Forget Format Forward
    Gather Generate Get Give Group Guard
    Hand Handle Hash Hide Hold
    Ignore Import Index Infer Initialise Insert Inspect Interpolate Invert Iterate
    Join
    Keep
    Launch Lay Learn Leave Let Limit List Load Locate Lock Log Look
    Make Map Mark Mask Match Maximise Measure Merge Mine Minimise Mix Move Multiply
    Name Narrow Normalise Note Notice Number
    Open Order
    Pack Pad Parse Pass Permute Pick Plan Plot Pool Predict Prefetch Prepare Print Process Produce
    Project Prove Publish Pull Push Put
    Quantise Query Quote
    Raise Rank Read Rebuild Receive Record Reduce Refuse Register Reject Release Remember Remove
    Rename Render Repeat Replace Report Require Resample Rescale Rescore Reserve Reset Resize
    Resolve Restore Resume Return Reverse Rewrite Round Run
    Sample Save Scale Scan Score Search Seal Seed Seek Select Send Separate Set Shard Share Shorten
    Show
    Shuffle Skip Sort Split Stack Standardise Start Step Stop Store Stream Strip Subtract Sum Swap
    Sweep Switch Synchronise
    Take Tell Test Tile Time Train Transform Translate Trim Truncate Tune Turn
    Undo Unpack Update Use
    Validate Verify View Visit
    Wait Walk Warn Watch Weigh Whiten Widen Wrap Write
    Yield
"""
PREPOSITIONS = """
    above across after against along among around as at before behind below beside between beyond
    by for from in inside into of off on onto out outside over past through to toward towards under
    until upon via with within without
"""
ALLOWED_PREFIXES = ("as_", "from_", "to_")
# Without those that are imperatives as well (read, set, split) or nouns (bound).
IRREGULAR_PARTICIPLES = """
    begun broken brought built chosen done drawn driven fallen found frozen given gone grown held
    hidden kept known laid led left lent lost made meant met paid said seen sent shown sold sought
    spent stood sunk taken taught thought told torn understood won worn woven written
"""
# Words that only look like a participle or a gerund.
NOUNS_AND_VERBS = {"embed", "embedding", "need", "ranking", "seed", "speed"}
VAGUE = {"own", "there", "place", "found", "given", "known", "chosen", "part", "parts"}
# `part` is a slice of the embedding vector and nothing else: these files handle such slices.
PARTS = {
    "cli.py",
    "commands/embed.py",
    "commands/evaluate.py",
    "commands/heads.py",
    "commands/learners.py",
    "commands/plot.py",
    "commands/train.py",
    "commands/training_options.py",
    "commands/training_setup.py",
    "models/embedder.py",
    "models/learners.py",
    "models/spec.py",
    "options/embedding.py",
    "options/parts.py",
    "options/rules.py",
    "parts/masks.py",
    "parts/slices.py",
    "files/describe.py",
    "files/embeddings.py",
    "files/embeddings_writer.py",
    "files/shards.py",
    "files/vector_parts.py",
    "options/retrieval.py",
    "retrieval/conquer.py",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


each_module = pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))


def list_functions(source: str) -> Iterator[Function]:
    """Yield every function that is not a property, nested ones too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            decorators = {ast.unparse(each) for each in node.decorator_list}
            if not any("property" in each or each.endswith(".setter") for each in decorators):
                yield node


def starts_without_verb(function: Function) -> bool:
    """Return whether a function has a docstring that does not begin with a verb."""
    words = (ast.get_docstring(function) or "").split()
    if not words:
        return False
    return words[0].rstrip(",:;.") not in VERBS.split() or words[1:2] == ["of"]


def is_badly_named(name: str) -> bool:
    """Return whether a function's name begins with a participle, a gerund or a preposition."""
    if name.startswith("__") and name.endswith("__"):
        return False
    name = name.lstrip("_")
    first = name.split("_")[0]
    if first in NOUNS_AND_VERBS or name.startswith(ALLOWED_PREFIXES):
        return False
    if first.endswith(("ed", "ing")) or first in IRREGULAR_PARTICIPLES.split():
        return True
    return first in PREPOSITIONS.split() and name != "to"  # `to` is torch's


def list_identifiers(source: str) -> Iterator[tuple[str, int]]:
    """Yield the names and lines of variables, parameters, attributes and functions."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr="parts"):
                pass  # of a pathlib path, as `component.path.parts`
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name):
                yield name, node.lineno


@each_module
def test_docstrings_begin_with_a_verb(path: Path) -> None:
    functions = [each for each in list_functions(path.read_text()) if starts_without_verb(each)]
    assert not [f"{path}:{each.lineno} {ast.get_docstring(each)}" for each in functions]


@each_module
def test_functions_are_named_by_verbs(path: Path) -> None:
    names = {each.name for each in list_functions(path.read_text())}
    component = {path.stem}  # `--loss lifted-structure`: the paper's noun
    assert not {name for name in names - component if is_badly_named(name)}


@each_module
def test_words_have_one_meaning(path: Path) -> None:
    vague = VAGUE - ({"part", "parts"} if str(path.relative_to(ROOT)) in PARTS else set())
    identifiers = list_identifiers(path.read_text())
    assert not [f"{path}:{line} {name}" for name, line in identifiers if name in vague]


@pytest.mark.parametrize("path", [path for path in MODULES if ">>>" in path.read_text()], ids=str)
def test_examples_hold(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_checks_see_what_they_look_for() -> None:
    source = (
        "def opened(own):\n"
        "    'The opened file.'\n"
        "    def _of_file():\n"
        "        'Count of files.'\n"
        "    part = path.parts\n"
        "def as_text():\n"
        "    'Return it.'\n"
        "@property\n"
        "def named():\n"
        "    'Its name.'\n"
    )
    functions = {each.name: each for each in list_functions(source)}
    assert functions.keys() == {"opened", "_of_file", "as_text"}
    assert [n for n, each in functions.items() if starts_without_verb(each)] == [
        "opened",
        "_of_file",
    ]
    assert [name for name in functions if is_badly_named(name)] == ["opened", "_of_file"]
    assert VAGUE & {name for name, _ in list_identifiers(source)} == {"own", "part"}
