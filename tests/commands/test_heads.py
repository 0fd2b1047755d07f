"""Heads on cached vectors, as their users call them: `--arch vectors`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.engine.samplers import ClassBalanced
from mltool.files import canonical_json, embeddings, history, safetensors_file
from mltool.files.embeddings import Embeddings
from mltool.models import checkpoint

Call = Callable
CLASSES, EACH, DIM = 6, 10, 16
QUICK = ("-a", "vectors", "--dim", 8, "--epochs", 2, "-b", 24, "--threads", 1)


def write(path: Path, *, first: int = 0, **changes: object) -> Path:
    """Vectors of CLASSES classes whose images have never been anywhere."""
    generator = np.random.default_rng(first)
    labels = np.repeat(np.arange(CLASSES), EACH) + first
    centres = np.random.default_rng(9).normal(size=(99, DIM))
    vectors = (centres[labels] + generator.normal(size=(len(labels), DIM))).astype(np.float32)
    fields = {
        "names": np.array([f"c{c}/{n:03}.jpg".encode() for n, c in enumerate(labels)]),
        "vectors": vectors,
        "labels": [f"class{c:02}" for c in labels],
        "columns": {"split": np.array([b"a", b"b"] * (len(labels) // 2))},
        "metric": "euclidean",
        "space": "5" * 64,
        "preprocess": '{"crop": 96}',
        "root": "/nowhere/photos.h5",
    }
    embeddings.write(path, Embeddings(**fields | changes))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "train.h5")


@pytest.fixture(scope="module")
def test(data: Path) -> Path:
    return write(data.parent / "test.h5", first=10)


@pytest.fixture(scope="module")
def head(data: Path, call: Call) -> Path:
    path = data.parent / "head.safetensors"
    call("train", f"{data}:all", "-o", path, *QUICK)
    return path


def test_a_head_learns_and_embeds(tmp_path: Path, data: Path, test: Path, call: Call) -> None:
    head, out = tmp_path / "head.safetensors", tmp_path / "out.h5"
    call("train", data, "--split", "all", "-o", head, *QUICK)
    call("embed", head, test, "-o", out)
    before, after = embeddings.read(test), embeddings.read(out)
    saved = checkpoint.read(str(head))
    weight, bias = saved.state["after.weight"].numpy(), saved.state["after.bias"].numpy()
    expected = before.vectors @ weight.T + bias  # as they are stored: nothing is normalised
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(after.vectors, expected, atol=1e-6)
    assert after.space == saved.digest
    assert (after.metric, after.normalized) == ("cosine", True)
    assert after.names.tolist() == before.names.tolist()
    assert after.labels.tolist() == before.labels.tolist()
    assert after.label_names == before.label_names
    assert after.columns["split"].tolist() == before.columns["split"].tolist()
    assert (after.root, after.preprocess) == (before.root, before.preprocess)
    assert "precision@1" in call("evaluate", out).output
    call("verify", "--full", head, out)


def test_a_checkpoint_says_what_the_head_takes_and_nothing_of_images(
    head: Path, data: Path, call: Call
) -> None:
    spec = safetensors_file.read_meta(head)["spec"]
    assert {key: value for key, value in spec.items() if value} == {
        "backbone": "vectors",
        "channels": DIM,
        "dim": 8,
        "input_metric": "euclidean",
        "input_space": "5" * 64,
        "metric": "cosine",
        "normalize": True,
        "projection": "linear",
    }
    settings = history.read(head)[-1]["settings"]
    assert settings["arch"] == "vectors"
    assert not {"augment", "image_size", "resize", "pooling", "on_bad_image"} & settings.keys()
    assert f"input space: {'5' * 64}" in call("info", head).output
    lines = call("info", "--history", head).output
    assert "--arch vectors" in lines
    digest = embeddings.read(data).digest
    assert digest in call("info", "--history", "--json", head).output


def test_images_are_located_from_another_folder(tmp_path: Path, head: Path, call: Call) -> None:
    (tmp_path / "deep").mkdir()
    count = CLASSES * EACH
    paths = np.array([b"../photos/%d.jpg" % n for n in range(count - 1)] + [b"p.h5::x"])
    data = write(tmp_path / "deep" / "d.h5", columns={"path": paths}, root="")
    call("embed", head, data, "-o", tmp_path / "out.h5")
    after = embeddings.read(tmp_path / "out.h5").columns["path"].tolist()
    assert after == [b"photos/%d.jpg" % n for n in range(count - 1)] + [b"deep/p.h5::x"]
    call("embed", head, data, "-o", tmp_path / "deep" / "out.h5")
    again = embeddings.read(tmp_path / "deep" / "out.h5").columns["path"]
    assert again.tolist() == paths.tolist()


def test_a_linear_head_is_that_of_a_plain_loop(tmp_path: Path, data: Path, call: Call) -> None:
    path = tmp_path / "head.safetensors"
    words = ("--schedule", "constant", "--lr", 0.01, "--seed", 3, "--precision", "fp32")
    call("train", f"{data}:all", "-o", path, *QUICK, *words)
    stored = embeddings.read(data)
    sampler = ClassBalanced(stored.labels, classes_per_batch=6, images_per_class=4, seed=3)
    torch.manual_seed(3)
    linear = nn.Linear(DIM, 8)
    optimizer = torch.optim.AdamW(
        [{"params": [linear.weight], "weight_decay": 1e-4}, {"params": [linear.bias]}],
        lr=0.01,
        weight_decay=0.0,
    )
    for number in range(2 * sampler.steps):
        rows = [row for row, _ in sampler.batch(*divmod(number, sampler.steps))]
        vectors = functional.normalize(linear(torch.from_numpy(stored.vectors[rows])))
        loss = multi_similarity(vectors @ vectors.T, torch.from_numpy(stored.labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = checkpoint.read(str(path)).state
    torch.testing.assert_close(learned["after.weight"], linear.weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(learned["after.bias"], linear.bias, atol=1e-6, rtol=0)


def multi_similarity(sim: Tensor, labels: Tensor) -> Tensor:
    """Wang et al., CVPR 2019, without mining: alpha 2, beta 50, base 0.5."""
    terms = []
    for row, label in enumerate(labels):
        others = torch.arange(len(labels)) != row
        positive, negative = sim[row, (labels == label) & others], sim[row, labels != label]
        pull = torch.log1p(torch.exp(-2 * (positive - 0.5)).sum()) / 2
        push = torch.log1p(torch.exp(50 * (negative - 0.5)).sum()) / 50
        terms.append(pull + push)
    return torch.stack(terms).mean()


WAYS: list[Sequence[object]] = [
    ("--loss", "triplet", "--miner", "semi-hard"),
    ("--loss", "proxy-anchor", "--loss", "contrastive:weight=0.5", "--clip", 1),
    ("--loss", "soft-triple"),
    ("--loss", "mutual-information"),
    ("--loss", "contrastive", "--memory", 48),
    ("--loss", "contrastive", "--mixup", "embedding"),
    ("--loss", "contrastive", "--mixup", "input"),
    ("--mining", "hard", "--queries", 20, "--negatives", 2),
    ("--projection", "linear-bn", "--ema", 0.9),
    ("--projection", "layernorm"),
]


@pytest.mark.parametrize("words", WAYS, ids=lambda words: " ".join(map(str, words)))
def test_all_that_learns_from_vectors_works(
    tmp_path: Path, data: Path, test: Path, call: Call, words: Sequence
) -> None:
    out, start = tmp_path / "head.safetensors", tmp_path / "start.safetensors"
    val = ("--val", f"{test}:all")
    call("train", data, "--split", "all", "-o", start, *QUICK, *words, "--epochs", 0)
    call("train", data, "--split", "all", "-o", out, *QUICK, *words, *val)
    left, right = (checkpoint.read(str(path)).state for path in (start, out))
    assert any(not torch.equal(left[key], right[key]) for key in left)
    call("embed", out, test, "-o", tmp_path / "out.h5")


def test_a_head_without_projection_has_proxies_alone_to_learn(
    tmp_path: Path, data: Path, call: Call
) -> None:
    out = tmp_path / "head.safetensors"
    words = ("-a", "vectors", "--projection", "none", "--epochs", 1, "-b", 24, "--split", "a")
    call("train", data, "-o", out, *words, "--loss", "proxy-anchor")
    assert checkpoint.read(str(out)).spec.dim == DIM
    call("train", data, "-o", out, *words, status=2)


def test_several_files_are_joined_as_image_lists_are(
    tmp_path: Path, data: Path, test: Path, call: Call
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, source in enumerate((data, test)):
        (folder / f"{number}.h5").write_bytes(source.read_bytes())
    out = tmp_path / "head.safetensors"
    counts = []
    for words in (
        (data, test, "--split", "all"),
        (folder, "--split", "all"),
        (f"{folder}/*.h5", "--split", "all"),
        (f"{data}:a", f"{test}:b"),
        (data, data, "--split", "all"),
        (folder, "--split", "all", "--classes", "3-8"),
        (folder, "--split", "all", "--limit", 70),
    ):
        call("train", *words, "-o", out, *QUICK)
        counts.append(history.read(out)[-1]["counts"])
    images, classes = CLASSES * EACH, CLASSES
    assert [(each["vectors"], each["classes"]) for each in counts] == [
        (2 * images, 2 * classes),
        (2 * images, 2 * classes),
        (2 * images, 2 * classes),
        (images, 2 * classes),
        (images, classes),
        (images, 6),
        (70, 7),
    ]


def test_labels_come_from_another_list(tmp_path: Path, data: Path, call: Call) -> None:
    names = embeddings.read(data).names.tolist()
    lines = [f"/nowhere/{n},{name.decode()},group{n % 3}" for n, name in enumerate(names)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["path,name,label", *lines]) + "\n")
    out = tmp_path / "head.safetensors"
    bare = write(tmp_path / "bare.h5", labels=None)
    call("train", f"{bare}:all", "--labels", labels, "-o", out, *QUICK)
    assert checkpoint.read(str(out)).classes == ("group0", "group1", "group2")


def test_records_tell_vectors_apart(tmp_path: Path, data: Path, call: Call) -> None:
    """Equal names and labels do not make equal vectors: --resume must see the difference."""
    folder, out = tmp_path / "shards", tmp_path / "head.safetensors"
    folder.mkdir()
    stored = embeddings.read(data)
    for number, rows in enumerate((np.arange(30), np.arange(30, 60))):
        embeddings.write(folder / f"{number}.h5", stored.take(rows))
    words = ("train", f"{folder}/*.h5", "--split", "all", "-o", out, *QUICK, "--resume")
    call(*words)
    before = out.read_bytes()
    call(*words)
    assert out.read_bytes() == before
    part = embeddings.read(folder / "1.h5", load=True)
    embeddings.write(folder / "1.h5", Embeddings(**vars(part) | {"vectors": part.vectors + 1}))
    call(*words)
    assert out.read_bytes() != before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"space": "6" * 64}, "space 555555555555, but"),
        ({"metric": "cosine"}, "compared by euclidean, but"),
        ({"vectors": np.ones((CLASSES * EACH, 3), np.float32)}, "takes 16-d vectors, but"),
    ],
)
def test_a_head_takes_vectors_of_its_space_alone(
    tmp_path: Path, head: Path, data: Path, call: Call, changes: dict, reason: str
) -> None:
    other = write(tmp_path / "other.h5", **changes)
    for words in (
        ("embed", head, other),
        ("train", f"{other}:all", "--init", head, "--epochs", 1),
        ("train", f"{data}:all", *QUICK, "--val", f"{other}:all"),
    ):
        output = call(*words, "-o", tmp_path / "out", status=5).output
        assert reason in output
        assert "other.h5" in output
        assert "embed the images with the model" in output
    assert not (tmp_path / "out").exists()
    call("positivity", head, f"{other}:all", status=5)
    call("train", f"{data}:all", f"{other}:all", "-o", tmp_path / "out", *QUICK, status=5)


@pytest.mark.parametrize("unknown", ["of the head", "of the vectors"])
def test_a_missing_space_only_warns(
    tmp_path: Path, head: Path, data: Path, call: Call, unknown: str
) -> None:
    bare, learner = write(tmp_path / "bare.h5", space=""), head
    given = bare
    if unknown == "of the head":
        learner, given = tmp_path / "head.safetensors", data
        call("train", f"{bare}:all", "-o", learner, *QUICK)
    output = call("embed", learner, given, "-o", tmp_path / "out.h5").output
    assert "does not say of which model its vectors are" in output


def test_a_head_goes_on_from_a_head(tmp_path: Path, head: Path, data: Path, call: Call) -> None:
    out = tmp_path / "more.safetensors"
    call("train", f"{data}:all", "--init", head, "-o", out, "--epochs", 0)
    left, right = checkpoint.read(str(head)), checkpoint.read(str(out))
    assert left.spec == right.spec
    assert all(torch.equal(left.state[key], right.state[key]) for key in left.state)
    call("train", f"{data}:all", "--init", head, "-o", out, "--augment", "crop", status=2)
    words = ("train", "digits:train", "--init", head, "-o", out, "--arch", "test_resnet")
    assert "takes cached vectors" in call(*words, "--limit", 50, status=5).output


def damaged(path: Path) -> Path:
    write(path)
    with path.open("r+b") as file:
        content = file.read()
        where = content.index(embeddings.read(path).vectors[7].tobytes())
        file.seek(where)
        file.write(np.float32(np.nan).tobytes())
    return path


BAD = {
    "no labels": (lambda folder: write(folder / "x.h5", labels=None), "no image has a label"),
    "NaN": (lambda folder: damaged(folder / "x.h5"), "x.h5: the vector of c0/007.jpg"),
    "views": (lambda folder: write(folder / "x.h5", views=2), "holds 2 views of each image"),
    "no file": (lambda folder: folder / "x.h5", "no file"),
    "a benchmark": (lambda folder: "digits:train", "cached vectors are .h5 files"),
    "standard input": (lambda folder: "-", "cached vectors are .h5 files"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_vectors_are_named(tmp_path: Path, call: Call, kind: str) -> None:
    make, reason = BAD[kind]
    words = (make(tmp_path), "--split", "all", "-o", tmp_path / "out.safetensors", *QUICK)
    output = call("train", *words, status=5).output
    assert reason in output
    assert "Traceback" not in output


def test_image_lists_are_refused(tmp_path: Path, photos: Path, head: Path, call: Call) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\na.jpg,a\n")
    for given in (photos, listed, next(photos.rglob("*.jpg"))):
        output = call("train", given, "-o", tmp_path / "out.safetensors", *QUICK, status=5).output
        assert str(given) in output
        call("embed", head, given, "-o", tmp_path / "out.h5", status=5)
    call("pack", photos, "-o", tmp_path / "pack.h5", "-j", 0)
    call("embed", head, tmp_path / "pack.h5", "-o", tmp_path / "out.h5", status=5)


@pytest.mark.parametrize(
    "words",
    [
        ("--weights", "timm"),
        ("--pooling", "avg"),
        ("--projection", "conv"),
        ("--image-size", 64),
        ("--resize", 64),
        ("--keep-aspect",),
        ("--augment", "affine"),
        ("--on-bad-image", "skip"),
        ("--cache", "off"),
        ("--loss", "contrastive", "--mixup", "feature"),
    ],
    ids=str,
)
def test_what_is_for_images_is_a_usage_error(
    tmp_path: Path, data: Path, call: Call, words: tuple
) -> None:
    output = call("train", data, "-o", tmp_path / "out", *QUICK, *words, status=2).output
    assert str(words[-2] if len(words) > 2 else words[0]) in output


def test_the_backbone_has_no_rate_of_its_own(tmp_path: Path, data: Path, call: Call) -> None:
    words = ("--split", "all", "--lr-backbone", 0.1)
    call("train", data, "-o", tmp_path / "out", *QUICK, *words, status=2)


@pytest.mark.parametrize(
    "words",
    [
        ("--penultimate",),
        ("--views", 2),
        ("--on-bad-image", "ignore"),
        ("--image-size", 64),
        ("--weights", "timm"),
    ],
    ids=str,
)
def test_embed_refuses_what_is_for_images(
    tmp_path: Path, head: Path, test: Path, call: Call, words: tuple
) -> None:
    assert words[0] in call("embed", head, test, "-o", tmp_path / "o.h5", *words, status=2).output


def test_embed_never_replaces_its_input(tmp_path: Path, head: Path, call: Call) -> None:
    data = write(tmp_path / "data.h5")
    before = data.read_bytes()
    call("embed", head, tmp_path, "-o", data, status=2)
    assert data.read_bytes() == before


def test_shards_of_a_head_are_its_vectors(
    tmp_path: Path, head: Path, test: Path, call: Call
) -> None:
    call("embed", head, test, "-o", tmp_path / "whole.h5")
    for number in range(3):
        call("embed", head, test, "-o", tmp_path / f"s{number}.h5", "--shard", f"{number}/3")
    parts = [embeddings.read(tmp_path / f"s{number}.h5").vectors for number in range(3)]
    whole = embeddings.read(tmp_path / "whole.h5").vectors
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_images_are_no_queries_of_a_head(
    tmp_path: Path, head: Path, test: Path, photos: Path, call: Call
) -> None:
    call("embed", head, test, "-o", tmp_path / "gallery.h5")
    photo = next(photos.rglob("*.jpg"))
    output = call("search", tmp_path / "gallery.h5", photo, "--model", head, status=2).output
    assert "takes cached vectors, not images" in output
    assert "mltool embed" in output
    call("search", tmp_path / "gallery.h5", tmp_path / "gallery.h5", "-k", 2)


def test_positivity_is_measured_on_vectors(head: Path, data: Path, call: Call) -> None:
    words = ("positivity", head, f"{data}:all", "--batches", 2, "--batch-size", 24, "--json")
    for level in ("embedding", "input"):
        curve = json.loads(call(*words, "--mixup", level).stdout)
        assert curve["examples"] > 0
        assert len(curve["empirical"]) == len(curve["share"])


LESSONS = {
    "regression": ("--loss", "regression"),
    "contrastive+": ("--loss", "contrastive+"),
    "transfer": ("--loss", "pkt", "--dim", 8),
    "raw": ("--loss", "rkd", "--dim", 8),
    "mined": ("--loss", "contrastive+", "--mining", "hard", "--queries", 20, "--negatives", 2),
    "symmetric": ("--loss", "contrastive", "--loss", "pkt", "--symmetric", "--miner", "hard"),
}


@pytest.fixture(scope="module")
def teacher(data: Path) -> Path:
    """Longer vectors of the same images, of another model."""
    vectors = np.random.default_rng(2).normal(size=(CLASSES * EACH, 24)).astype(np.float32)
    return write(data.parent / "teacher.h5", vectors=vectors, metric="cosine", space="7" * 64)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_head_learns_from_stored_vectors_of_a_teacher(
    tmp_path: Path, data: Path, teacher: Path, call: Call, lesson: str
) -> None:
    out = tmp_path / "student.safetensors"
    quick = ("-a", "vectors", "--epochs", 2, "-b", 24, "--split", "all")
    call("distill", data, "-t", teacher, *quick, *LESSONS[lesson], "-o", out)
    spec = checkpoint.read(str(out)).spec
    asymmetric = lesson in ("regression", "contrastive+", "mined")
    assert spec.teacher_space == ("7" * 64 if asymmetric else "")
    assert spec.normalize == (lesson != "raw")
    call("embed", out, data, "-o", tmp_path / "out.h5")
    assert embeddings.read(tmp_path / "out.h5").teacher_space == spec.teacher_space


def test_regression_comes_near_its_teacher(tmp_path: Path, data: Path, call: Call) -> None:
    stored = embeddings.read(data)
    turn = np.random.default_rng(4).normal(size=(DIM, 12)).astype(np.float32)
    teacher = write(tmp_path / "t.h5", vectors=stored.vectors @ turn, metric="cosine", space="t")
    words = ("-a", "vectors", "--loss", "regression", "--epochs", 100, "-b", 20, "--lr", 0.05)
    out = tmp_path / "student.safetensors"
    call("distill", data, "--split", "all", "-t", teacher, *words, "-o", out)
    call("embed", out, data, "-o", tmp_path / "out.h5")
    taught = embeddings.read(teacher).vectors
    taught = taught / np.linalg.norm(taught, axis=1, keepdims=True)
    assert (embeddings.read(tmp_path / "out.h5").vectors * taught).sum(1).min() > 0.99


def test_a_head_can_be_the_teacher(tmp_path: Path, data: Path, head: Path, call: Call) -> None:
    """Running along it gives the vectors that it has stored, so the student is the same."""
    call("embed", head, data, "-o", tmp_path / "stored.h5")
    words = ("-a", "vectors", "--epochs", 2, "-b", 24, "--split", "all", "--loss", "regression")
    students = []
    for teacher in (head, tmp_path / "stored.h5"):
        out = tmp_path / f"{teacher.stem}-student.safetensors"
        call("distill", data, "-t", teacher, *words, "-o", out)
        students.append(checkpoint.read(str(out)).state)
    for key, value in students[0].items():
        torch.testing.assert_close(students[1][key], value, atol=1e-5, rtol=0)


def test_teachers_that_do_not_fit_are_refused(
    tmp_path: Path, data: Path, head: Path, photos: Path, model: Path, call: Call
) -> None:
    vectors = ("distill", f"{data}:all", "-o", tmp_path / "s", "-a", "vectors", "-b", 24)
    assert "takes images" in call(*vectors, "-t", model, status=2).output
    assert "takes images" in call(*vectors, "-t", "timm:test_resnet", status=2).output
    for loss in ("fitnet", "attention"):
        output = call(*vectors, "-t", model, "--loss", loss, status=2).output
        assert "feature maps" in output
    assert "--views" in call(*vectors, "-t", head, "--views", 2, status=2).output
    other = write(tmp_path / "other.h5", space="6" * 64)
    words = (*vectors[:1], f"{other}:all", *vectors[2:])
    assert "space" in call(*words, "-t", head, status=5).output
    count = CLASSES * EACH
    wide = write(
        tmp_path / "views.h5",
        vectors=np.ones((count, 2 * DIM), np.float32),
        views=2,
        metric="cosine",
        preprocess=canonical_json.to_json({"augment": "crop", "seed": 0}),
    )
    assert "2 views of each image" in call(*vectors, "-t", wide, status=2).output
    images = ("distill", photos, "-o", tmp_path / "s", "-a", "test_resnet")
    assert "takes cached vectors" in call(*images, "-t", head, status=2).output
