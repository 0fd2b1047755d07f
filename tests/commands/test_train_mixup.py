"""`mltool train --mixup`: what stands in the history, and what is refused before any work."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mltool.cli import train
from mltool.errors import UsageError
from mltool.models import checkpoint

app = typer.Typer()
app.command()(train)


def call(output: Path, *words: object) -> Result:
    usual = ["digits:train", "-o", output, "--arch", "test_resnet", "--image-size", 16]
    usual += ["--resize", 16, "--dim", 8, "--epochs", 0, "-j", 0, "-d", "cpu"]
    return CliRunner().invoke(app, [str(word) for word in [*usual, *words]])


FEATURE = "pairs=pos-neg,negatives=hardest,per_anchor=none,alpha=2.0,draw=pair,weight=0.4"
INPUT = "pairs=pos-neg+anchor-neg,negatives=hardest,per_anchor=1,alpha=2.0,draw=pair,weight=0.3"


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("feature:per_anchor=none", f"feature:stage=last,{FEATURE}"),
        ("input:pairs=pos-neg+anchor-neg,weight=0.3", f"input:{INPUT}"),
    ],
)
def test_the_history_names_every_setting(tmp_path: Path, given: str, written: str) -> None:
    output = tmp_path / "m.safetensors"
    done = call(output, "--mixup", given)
    assert done.exit_code == 0, done.exception
    settings = checkpoint.read(str(output)).history[-1]["settings"]
    assert settings["mixup"].lower() == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mixup", "embeding"], "did you mean embedding"),
        (["--mixup", "feature:stage=layer9"], "no stage 'layer9'; did you mean layer4"),
        (["--mixup", "input:pairs=pos"], "pairs=pos is not valid"),
        (["--mixup", "input", "--loss", "arcface"], "candidates of arcface are proxies"),
        (["--mixup", "input", "--loss", "nca"], "more per_anchor"),
        (["--mixup", "embedding", "--loss", "triplet", "--loss", "n-pair"], "the vectors"),
    ],
)
def test_what_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    done = call(tmp_path / "m.safetensors", *words)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert not list(tmp_path.iterdir())
