"""Every `mltool` line of README and recipes is parsed against the real options."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from mltool import components
from mltool.cli import app
from mltool.losses import Pairs

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
        parent = GROUP.context_class(GROUP, info_name="mltool")  # presets name its commands
        GROUP.commands[words[0]].make_context(words[0], words[1:], parent=parent)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The complete loss of README, as a file."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "mean_gap.py"
    path.write_text(code)
    return path


def test_the_sample_loss_is_its_formula(sample: Path) -> None:
    sim = torch.tensor([[0.9, 0.1, 0.5], [0.3, 0.2, 0.7]], requires_grad=True)
    pos = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    loss = components.load("losses", f"{sample}:margin=0.1")
    value = loss(Pairs(sim, pos, 1 - pos))
    assert value.item() == pytest.approx((0 + 0.1 + 0.7 - 0.25) / 2)
    value.backward()
    assert sim.grad[0].tolist() == [0, 0, 0]  # beyond its margin


def test_the_sample_loss_trains_where_it_lies(sample: Path) -> None:
    words = ["train", "digits:train", "--arch", "test_resnet", "--image-size", 16, "--dim", 8]
    words += ["--limit", 40, "--epochs", 1, "-b", 20, "-j", 0, "-d", "cpu", "--loss", sample]
    done = CliRunner().invoke(app, [str(w) for w in [*words, "-o", sample.parent / "m"]])
    assert done.exit_code == 0, done.output
    assert (sample.parent / "m").is_file()


def test_the_files_to_add_to_exist() -> None:
    section = (ROOT / "README.md").read_text().partition("## Extending mltool")[2]
    section = section.partition("\n## ")[0]
    paths = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", section)
    assert len(paths) > 10
    assert not [p for p in paths if p != "mean_gap.py" and not (ROOT / "mltool" / p).is_file()]
