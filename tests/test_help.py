"""Help and usage errors answer at once: nothing heavy is imported for them."""

import json
import os
import subprocess
import sys

import pytest
import typer

from mltool.cli import app

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
HEAVY = {"torch", "torchvision", "timm", "sklearn", "h5py", "numpy", "rich", "faiss", "PIL"}


def imported_by(*words: str) -> tuple[set[str], int, str, str]:
    """Heavy modules in sys.modules after a command line, its status, stdout and stderr."""
    code = (
        "import atexit, json, sys\n"
        f"sys.argv = ['mltool', *{list(words)!r}]\n"
        "from mltool.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    status = end.code\n"
        "print('\\n' + json.dumps([sorted(m for m in sys.modules if '.' not in m), status]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules, status = json.loads(done.stdout.splitlines()[-1])
    return HEAVY & set(modules), status, done.stdout, done.stderr


def test_every_command_is_in_a_panel() -> None:
    panels = {"Learn", "Search", "Files", "Help"}
    assert {command.rich_help_panel for command in app.registered_commands} == panels


@pytest.mark.parametrize("words", [[], *[[name] for name in COMMANDS]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy, status, out, _ = imported_by(*words, "--help")
    assert (heavy, status) == (set(), 0)
    assert "Usage: mltool" in out


def test_version() -> None:
    heavy, status, out, _ = imported_by("--version")
    assert (heavy, status) == (set(), 0)
    assert out.startswith("mltool 0.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "train"),
        (["train", "digits:train", "-o", "x", "--epocs", "3"], "--epochs"),
        (["train", "digits:train", "-o", "x", "--epochs", "many"], "--epochs"),
        (["embed", "pixels", "digits"], "--output"),
        (["list", "loses"], "did you mean losses"),
    ],
)
def test_usage_errors_exit_2_and_name_the_remedy(words: list[str], message: str) -> None:
    heavy, status, _, err = imported_by(*words)
    assert (heavy, status) == (set(), 2)
    assert message in err


def test_list_prints_formula_settings_and_paper() -> None:
    heavy, status, out, _ = imported_by("list", "losses")
    assert (heavy, status) == (set(), 0)
    assert "multi-similarity: " in out
    assert "alpha=2" in out
    assert "Wang" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --loss multi", ["multi-similarity"]),
        ("train --loss margin --miner h", ["hard"]),
        ("train --mixup embedding:al", ["embedding:alpha="]),
        ("distill --loss re", ["regression", "relaxed-contrastive"]),
        ("embed --augment af", ["affine"]),
        ("positivity --mixup i", ["input"]),
    ],
)
def test_shells_complete_components(words: str, expected: list[str]) -> None:
    line = f"mltool {words}"
    asked = {"_MLTOOL_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = subprocess.run(
        [sys.executable, "-c", "from mltool.cli import main; main()"],
        env=os.environ | asked | {"COMP_CWORD": str(len(line.split()) - 1)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == expected, done.stderr
