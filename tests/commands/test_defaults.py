"""What a command does where nothing is said: from scratch, and from a network that has learned."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import timm
from safetensors.torch import save_file

from mltool.commands.training_options import TrainingOptions
from mltool.models import checkpoint
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.run import RunOptions
from mltool.options.validation import ValidationOptions

Run = Callable[..., CompletedProcess]
TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "-j", 0, "--epochs", 0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("words", "projection", "freeze_bn", "lr"),
    [
        ((), "linear", False, 1e-2),
        (("--weights", "W"), "none", True, 1.5e-3),
        (("--weights", "W", "--dim", 16), "linear", True, 1.5e-3),
        (("--weights", "W", "--projection", "linear", "--no-freeze-bn"), "linear", False, 1.5e-3),
        (("--freeze-bn", "--optimizer", "lars"), "linear", True, 0.3),
    ],
)
def test_a_pretrained_backbone_keeps_its_features_and_statistics(
    tmp_path: Path,
    photos: Path,
    run: Run,
    weights: Path,
    words: tuple,
    projection: str,
    freeze_bn: bool,
    lr: float,
) -> None:
    path = tmp_path / "model.safetensors"
    run("train", photos, "-o", path, *TINY, *(weights if word == "W" else word for word in words))
    found = checkpoint.read(str(path))
    assert found.spec.projection == projection
    settings = found.history[-1]["settings"]
    expected = {"freeze_bn": freeze_bn, "projection": projection, "lr": lr}
    assert {name: settings[name] for name in expected} == expected


def test_a_start_keeps_its_projection_and_statistics(
    tmp_path: Path, photos: Path, run: Run, model: Path
) -> None:
    path = tmp_path / "again.safetensors"
    run("train", photos, "-o", path, "--init", model, "-j", 0, "--epochs", 0)
    found = checkpoint.read(str(path))
    assert found.spec.projection == checkpoint.read(str(model)).spec.projection == "linear"
    assert found.history[-1]["settings"]["freeze_bn"] is True


def test_rates_rise_in_the_first_steps_from_scratch(tmp_path: Path, photos: Path, run: Run) -> None:
    path = tmp_path / "model.safetensors"
    run("train", photos, "-o", path, *TINY[:-2], "--epochs", 3, "-b", 40, "-d", "cpu")
    assert checkpoint.read(str(path)).history[-1]["settings"]["warmup"] == 1.0  # of 3 steps


@pytest.mark.parametrize(
    ("model", "optimisation", "warmup"),
    [
        (ModelOptions(), OptimisationOptions(epochs=20), 0.25),
        (ModelOptions(), OptimisationOptions(epochs=0), 0.0),
        (ModelOptions(), OptimisationOptions(warmup=2.0), 2.0),
        (ModelOptions(weights="w.safetensors"), OptimisationOptions(), 0.0),
        (ModelOptions(init="m.safetensors"), OptimisationOptions(warmup=1.0), 1.0),
        (ModelOptions(arch="vectors"), OptimisationOptions(), 0.0),
    ],
)
def test_only_networks_from_scratch_warm_up(
    model: ModelOptions, optimisation: OptimisationOptions, warmup: float
) -> None:
    options = TrainingOptions(
        data=[],
        output="m.safetensors",
        losses=[],
        model=model,
        objective=ObjectiveOptions(),
        images=ImageOptions(),
        lists=ListOptions(),
        batches=BatchOptions(),
        tuples=TupleOptions(),
        optimisation=optimisation,
        validation=ValidationOptions(),
        execution=RunOptions(),
    )
    assert options.choose_warmup(steps=100) == warmup
