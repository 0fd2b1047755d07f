"""Defaults in files: presets below --config, below the environment, below flags."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from mltool import cli, components, shell
from mltool.errors import UsageError
from mltool.options import defaults
from mltool.options.defaults import FileDefaults
from mltool.options.group import list_recorded, list_unwritten
from mltool.options.run import Preset

Call = Callable[..., dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class Options:
    method: Annotated[str, typer.Option("--method")] = "swav"
    preset: Preset = "small"
    epochs: Annotated[int, typer.Option("--epochs", min=0)] = 20
    lr: Annotated[float | None, typer.Option("--lr")] = None
    weight_decay: Annotated[float, typer.Option("--weight-decay")] = 0.5
    loss: Annotated[list[str] | None, typer.Option("--loss")] = None
    symmetric: Annotated[bool, typer.Option("--symmetric/--no-symmetric")] = False


SMALL = """
[learn]
epochs = 7
weight-decay = 0.1
[learn."--method swav"]
lr = 0.6
symmetric = true
method = "swav:prototypes=30,epsilon=0.03"
[learn."--method byol"]
lr = 0.2
[other]
lr = 9
"""
LARGE = """
[learn]
method = "byol"
loss = ["a", "b"]
[learn."--method byol"]
epochs = 300
"""


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch) -> Callable[..., tuple[Result, Options | None]]:
    """Call a program of two commands; returns what the command `learn` was called with."""
    monkeypatch.setattr(defaults, "PRESETS", tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "large.toml").write_text(LARGE)
    app = shell.application("toy", "", "", "1")
    calls: list[Options] = []

    @shell.command(app, "Learn")
    def learn(options: Options) -> None:
        calls.append(options)

    @shell.command(app, "Learn")
    def other(lr: Annotated[float, typer.Option("--lr")] = 1.0) -> None: ...

    def call(*words: str, **environment: str) -> tuple[Result, Options | None]:
        done = CliRunner().invoke(app, words, env=environment)
        return done, calls.pop() if calls else None

    return call


@pytest.fixture
def learn(invoke: Callable) -> Call:
    """Call `learn`; returns those of its options that differ from the defaults of the group."""

    def call(*words: str, **environment: str) -> dict[str, object]:
        done, options = invoke("learn", *words, **environment)
        assert done.exit_code == 0, done.output
        usual = Options()
        return {
            name: value
            for name in vars(usual)
            if (value := getattr(options, name)) != getattr(usual, name)
        }

    return call


SWAV = {"method": "swav:prototypes=30,epsilon=0.03", "lr": 0.6, "symmetric": True}
BASE = {"epochs": 7, "weight_decay": 0.1}


def test_a_preset_depends_on_a_component(learn: Call) -> None:
    assert learn() == BASE | SWAV
    assert learn("--method", "byol") == BASE | {"method": "byol", "lr": 0.2}
    assert learn("--method", "moco") == BASE | {"method": "moco"}
    assert learn("--preset", "none") == {"preset": "none"}
    large = {"method": "byol", "epochs": 300, "loss": ["a", "b"], "preset": "large"}
    assert learn("--preset", "large") == large
    assert learn("--preset", "large", "--method", "swav") == {"loss": ["a", "b"], "preset": "large"}


def test_settings_of_a_component_stand_above_those_of_its_preset(learn: Call) -> None:
    found = learn("--method", "swav:epsilon=0.1,queue=5")
    assert found == BASE | SWAV | {"method": "swav:prototypes=30,epsilon=0.03,epsilon=0.1,queue=5"}
    text = "contrastive:margin=1,margin=0.25"  # the last of two counts
    assert components.parse("losses", text)["margin"] == 0.25


def test_flags_environment_config_preset_default(learn: Call, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        'lr = 0.3\n[learn]\nepochs = 3\n[learn."--method byol"]\nweight_decay = 0.9\n'
    )
    words = ("--config", str(config))
    assert learn(*words) == BASE | SWAV | {"lr": 0.3, "epochs": 3}
    byol = learn(*words, "--method", "byol")
    assert byol == {"method": "byol", "lr": 0.3, "epochs": 3, "weight_decay": 0.9}
    environment = {"TOY_LEARN_EPOCHS": "4", "TOY_LEARN_METHOD": "byol"}
    assert learn(*words, **environment) == byol | {"epochs": 4}
    assert learn(*words, "--epochs", "5", **environment) == byol | {"epochs": 5}
    assert learn("--no-symmetric") == BASE | {key: SWAV[key] for key in ("method", "lr")}


@pytest.mark.parametrize("source", ["flag", "environment", "config"])
def test_a_preset_and_its_component_are_named_anywhere(
    learn: Call, tmp_path: Path, source: str
) -> None:
    config = tmp_path / "run.toml"
    config.write_text('preset = "large"\nmethod = "byol"\n')
    words, environment = {
        "flag": (("--method", "byol", "--preset", "large"), {}),
        "environment": ((), {"TOY_LEARN_METHOD": "byol", "TOY_LEARN_PRESET": "large"}),
        "config": ((), {"TOY_LEARN_CONFIG": str(config)}),
    }[source]
    assert learn(*words, **environment)["epochs"] == 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[learn]\nepoch = 3\n", "preset small: learn has no option 'epoch'; did you mean epochs"),
        ('[learn."--methud swav"]\nlr = 1\n', "no option 'methud'; did you mean method"),
        ('[learn."--method swav"]\nlrr = 1\n', "no option 'lrr'; did you mean lr"),
        ("[learn.swav]\nlr = 1\n", """'swav' is no option; options of one component stand"""),
        ('[learn."--method"]\nlr = 1\n', '[learn."--OPTION COMPONENT"]'),
        ('[learn."--method swav".lr]\nx = 1\n', '[learn."--OPTION COMPONENT"]'),
        ('[learn."--method swav"]\nmethod = "byol"\n', "'byol' stands among the options for swav"),
        ('[learn."--method swav"]\nmethod = 3\n', "3 stands among the options for swav"),
        ("[lern]\nlr = 1\n", "'lern' is a table of no command; did you mean learn"),
        ("learn = 1\n", "'learn' is not a table"),
        ("lr", "cannot be read as TOML"),
    ],
)
def test_wrong_presets_are_usage_errors(
    invoke: Callable, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "small.toml").write_text(text)
    done, _ = invoke("learn")
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_words_are_usage_errors(invoke: Callable) -> None:
    for words, message in (
        (
            ("--preset", "smal"),
            "no preset 'smal'; did you mean small? (there are: large, small, none)",
        ),
        (("--preset", "../small"), "no preset '../small'"),
        (("--epochs", "-3"), "--epochs"),
        (("--epcohs", "3"), "--epochs"),
        (("--config", "nowhere.toml"), "nowhere.toml"),
    ):
        done, _ = invoke("learn", *words)
        assert done.exit_code == 2, words
        assert message in done.stderr
    assert invoke("other", "--preset", "small")[0].exit_code == 2
    assert invoke("learn", "--help", "--config", "nowhere.toml")[0].exit_code == 0


def test_presets_are_completed(invoke: Callable) -> None:
    assert defaults.complete_preset("") == ["large", "small", "none"]
    assert defaults.complete_preset("s") == ["small"]


def test_cases_of_a_repeatable_option_are_refused() -> None:
    file = FileDefaults("x.toml", cases={"loss": {"contrastive": {"lr": 1.0}}})
    with pytest.raises(UsageError, match=r"x.toml: --loss has no single component"):
        file.choose({"loss": ["contrastive"]})


def test_the_name_of_a_preset_is_not_recorded() -> None:
    assert "preset" not in list_recorded(Options())
    assert list_unwritten([Options], {})["preset"] == "none"


def test_presets_of_the_package_fit_their_commands() -> None:
    commands = {str(each.name): each for each in typer.main.get_command(cli.app).commands.values()}
    for path in defaults.PRESETS.glob("*.toml"):
        for name in tomllib.loads(path.read_text()):
            options = [option.name for option in commands[name].params]
            assert "preset" in options
            file = defaults.read_preset(path.stem, name, list(commands), options)
            for option, cases in file.cases.items():
                for component in cases:
                    assert file.complete({option: component})[option].startswith(component)
