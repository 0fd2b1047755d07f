"""Every `mltool` line of README and recipes is parsed against the real options."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from mltool.cli import app

ROOT = Path(__file__).parent.parent
GROUP = typer.main.get_command(app)
SOURCES = [ROOT / "README.md", *sorted((ROOT / "recipes").rglob("*.mk"))]
SOURCES += sorted((ROOT / "recipes" / "slurm").glob("*"))


def lines_of(path: Path) -> list[str]:
    """The shell lines of a document that start mltool, continuation lines joined."""
    text = path.read_text().replace("\\\n", " ")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL))
    # at the start of a command, or behind torchrun, srun and the like
    start = r"(?:^[ \t]*(?:\$ )?|[;|&(][ \t]*|-m )(?:\$\(MLTOOL\)|mltool) (.+)"
    found = re.findall(start, text, re.MULTILINE)
    return [line.split(" | ")[0].split(" && ")[0].split(" > ")[0] for line in found]


# a command that is composed when it runs shows nothing to check here
CASES = [
    (path.name, line) for path in SOURCES for line in lines_of(path) if not line.startswith('"$')
]


def test_there_are_lines_to_check() -> None:
    assert len(CASES) > 10


@pytest.mark.parametrize(("source", "line"), CASES)
def test_line_is_valid(source: str, line: str) -> None:
    line = line.replace("$$seed", "0")
    plain = re.sub(r"\$\((\w+)\)", r"\1", line).replace("$$", "$")
    words = [word for word in shlex.split(plain, comments=True) if word not in ("...",)]
    assert words[0].startswith("-") or words[0] in GROUP.commands, f"no command {words[0]}"
    if words[0] in GROUP.commands:
        GROUP.commands[words[0]].make_context(words[0], words[1:])
