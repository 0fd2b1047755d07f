"""Whole images of unequal sizes, from the command line: train, distill, embed, search."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from mltool.engine.data import Images, plain_view
from mltool.files import embeddings
from mltool.files.lists import image_lists
from mltool.models import checkpoint

Call = Callable[..., Result]
WHOLE = ("--keep-aspect", "--image-size", 48, "-j", 0, "--threads", 1)
TINY = ("--arch", "test_resnet", *WHOLE, "--dim", 16, "--freeze-bn", "--epochs", 2)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six places, five photographs each, in landscape, portrait and strips."""
    folder = tmp_path_factory.mktemp("views")
    generator = np.random.default_rng(0)
    for place in range(6):
        (folder / f"place{place}").mkdir()
        palette = generator.integers(0, 255, (3, 3, 3), dtype=np.uint8)
        for number in range(5):
            noisy = palette.astype(int) + generator.integers(-25, 25, palette.shape)
            size = [int(side) for side in generator.integers(34, 90, 2)]
            image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            image.resize(size, Image.Resampling.BICUBIC).save(
                folder / f"place{place}" / f"{number}.jpg", quality=92
            )
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, views: Path, call: Call) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("teacher")
    paths = {"model": folder / "model.safetensors", "vectors": folder / "vectors.h5"}
    call("train", views, *TINY, "-b", 15, "-o", paths["model"])
    call("embed", paths["model"], views, "-o", paths["vectors"])
    return paths


def test_vectors_are_those_of_single_images(teacher: dict[str, Path], views: Path) -> None:
    found = embeddings.read(str(teacher["vectors"]))
    assert json.loads(found.preprocess)["keep_aspect"] is True
    model = checkpoint.read(str(teacher["model"])).build_model().eval()
    images = Images(image_lists.read(str(views)), model.spec, plain_view(model.spec), seed=0)
    shapes = set()
    for row, name in enumerate(images.manifest.names):
        image = images.prepare(row)
        assert max(image.shape) <= 48
        shapes.add(image.shape)
        with torch.inference_mode():
            alone = model(image.unsqueeze(0))[0].numpy()
        own = found.vectors[list(found.names).index(name)]
        np.testing.assert_allclose(own, alone, atol=2e-2 if found.vectors.dtype == "f2" else 1e-2)
        assert float(own @ alone) > 0.999
    assert len(shapes) > 10


def test_shards_are_the_whole(
    tmp_path: Path, teacher: dict[str, Path], views: Path, call: Call
) -> None:
    for part in range(2):
        out = tmp_path / f"{part}.h5"
        call("embed", teacher["model"], views, "--shard", f"{part}/2", "-b", 4, "-o", out)
    whole = embeddings.read(str(teacher["vectors"]))
    parts = [embeddings.read(str(tmp_path / f"{part}.h5")).vectors for part in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.vectors)


@pytest.mark.parametrize("words", [(), ("--symmetric",)], ids=["asymmetric", "symmetric"])
def test_mined_tuples_teach_a_student(
    tmp_path: Path, teacher: dict[str, Path], views: Path, call: Call, words: tuple[str, ...]
) -> None:
    mined = ("--loss", "contrastive:form=squared,margin=0.7", "--mining", "hard", "--negatives", 2)
    command = ("distill", views, "-t", teacher["vectors"], *TINY, *mined, *words, "-b", 8)
    digests = []
    for name in ("one", "other"):
        student = tmp_path / f"{name}.safetensors"
        call(*command, "-o", student)
        digests.append(checkpoint.read(str(student)).digest)
    assert digests[0] == digests[1]
    assert checkpoint.read(str(student)).spec.keep_aspect
    call("embed", student, views, "-o", tmp_path / "s.h5")
    if not words:
        call("evaluate", tmp_path / "s.h5", teacher["vectors"], "--keep-self")


def test_a_teacher_beside_sees_the_same_images(
    tmp_path: Path, teacher: dict[str, Path], views: Path, call: Call
) -> None:
    words = ("distill", views, "-t", teacher["model"], *TINY, "-b", 10, "--loss", "regression")
    done = call(*words, "-o", tmp_path / "s.safetensors")
    assert "it sees the student's whole images" in done.stderr


def test_images_search_too(teacher: dict[str, Path], views: Path, call: Call) -> None:
    query = sorted((views / "place3").iterdir())[0]
    done = call("search", teacher["vectors"], query, "--model", teacher["model"], "-k", 1, "--tsv")
    assert f"place3/{query.name}" in done.stdout


def test_a_bare_backbone_takes_whole_images(tmp_path: Path, views: Path, call: Call) -> None:
    out = tmp_path / "bare.h5"
    call("embed", "test_resnet", views, *WHOLE, "-o", out)
    assert json.loads(embeddings.read(str(out)).preprocess)["keep_aspect"] is True
    history = call("info", "--history", out).stdout
    assert "--keep-aspect" in history
    assert "--resize" not in history


def test_squares_may_train_a_model_of_whole_images(tmp_path: Path, views: Path, call: Call) -> None:
    words = ("train", views, "--arch", "test_resnet", *WHOLE, "--dim", 8, "--epochs", 1, "-b", 15)
    call(*words, "--augment", "crop", "-o", tmp_path / "m.safetensors")
    assert checkpoint.read(str(tmp_path / "m.safetensors")).spec.keep_aspect


def test_several_views_of_whole_images(
    tmp_path: Path, teacher: dict[str, Path], views: Path, call: Call
) -> None:
    words = ("embed", teacher["model"], views, "--views", 3, "--augment", "whole")
    call(*words, "-o", tmp_path / "views.h5")
    found = embeddings.read_header(str(tmp_path / "views.h5"))
    assert found.vectors.shape == (30, 48)


@pytest.mark.parametrize(
    ("command", "words", "reason"),
    [
        ("train", ("--no-freeze-bn",), "have no common batch statistics; add --freeze-bn"),
        ("train", ("--mixup", "input"), "--mixup input needs images of one size"),
        ("train", ("--resize", 56), "leave it out with --keep-aspect"),
        ("distill", ("--loss", "attention", "--loss", "rkd"), "--loss attention needs images"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path,
    teacher: dict[str, Path],
    views: Path,
    call: Call,
    command: str,
    words: tuple,
    reason: str,
) -> None:
    given = ("-t", teacher["model"]) if command == "distill" else ()
    out = tmp_path / "m.safetensors"
    done = call(command, views, *given, *TINY, "-b", 15, *words, "-o", out, status=2)
    assert reason in done.stderr
    assert not out.exists()


def test_a_checkpoint_says_itself_how_it_sees(
    tmp_path: Path, teacher: dict[str, Path], views: Path, call: Call
) -> None:
    out = tmp_path / "v.h5"
    done = call("embed", teacher["model"], views, "--keep-aspect", "-o", out, status=2)
    assert "a checkpoint says itself" in done.stderr
    call("embed", teacher["model"], views, "--image-size", 64, "-o", out)
    assert json.loads(embeddings.read(str(out)).preprocess)["crop"] == 64
