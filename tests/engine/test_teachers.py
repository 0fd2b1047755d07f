"""A teacher's vectors: joined by name, read by row, and the same whether cached or online."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny_runs import SIZE, images, manifest, model
from torch.nn import functional

from mltool.commands.embed import _preprocess
from mltool.engine.data import Batch
from mltool.engine.loading import load
from mltool.engine.teachers import CachedTeacher, OnlineTeacher, is_file_of_vectors
from mltool.errors import InputError
from mltool.files import embeddings
from mltool.files.embeddings import Embeddings
from mltool.models.source import Source
from mltool.options.embedding import EmbedOptions


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


NAMES = [f"image{n}" for n in range(12)]


def written(path: Path, names: list[str], **changes) -> Path:
    """A file whose vector of image n is (n + 1) times a unit vector that depends on n."""
    numbers = np.array([int(name.removeprefix("image")) for name in names], int)
    vectors = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)[numbers]
    vectors *= (numbers + 1)[:, None]
    embeddings.write(path, Embeddings(names, changes.pop("vectors", vectors), **changes))
    return path


def rows_of(names: list[str]) -> torch.Tensor:
    vectors = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    found = torch.from_numpy(vectors[[int(name.removeprefix("image")) for name in names]])
    return functional.normalize(found)


def joined(path: Path | str, names: list[str]) -> CachedTeacher:
    teacher = CachedTeacher(str(path))
    teacher.join(np.array(names, "S"))
    return teacher


@pytest.mark.parametrize("seed", range(4))
def test_the_join_is_by_name_in_any_order(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    stored = generator.permutation(NAMES).tolist()
    wanted = generator.permutation(NAMES).tolist()[: 12 - 2 * seed]  # the file may hold more
    teacher = joined(written(tmp_path / "t.h5", stored), wanted)
    rows = generator.integers(0, len(wanted), 30)
    torch.testing.assert_close(teacher.read_rows(rows), rows_of([wanted[row] for row in rows]))
    assert teacher.dim == 5


def test_several_files_are_one_teacher(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        written(folder / f"{number}.h5", NAMES[number::3], space="abc")
    wanted = NAMES[::-1]
    for text in (folder, folder / "*.h5"):
        teacher = joined(text, wanted)
        torch.testing.assert_close(teacher.read_rows(np.arange(12)), rows_of(wanted))
        assert teacher.space == "abc"
        assert len(teacher.inputs[0][2]) == 64


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t.h5", NAMES[:8])
    with pytest.raises(InputError, match=r"lacks 4 of 12 images \(image8, image9, image10, \.\.\."):
        joined(path, NAMES)
    empty = written(tmp_path / "empty.h5", [], vectors=np.zeros((0, 5), np.float32))
    with pytest.raises(InputError, match="lacks 12 of 12"):
        joined(empty, NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "other"}, "space"),
        ({"metric": "dot"}, "metric"),
        ({"vectors": np.ones((6, 4), np.float32)}, "dimensions"),
    ],
)
def test_files_that_do_not_fit_each_other(tmp_path: Path, changes: dict, message: str) -> None:
    written(tmp_path / "1.h5", NAMES[:6])
    written(tmp_path / "2.h5", NAMES[6:], **changes)
    with pytest.raises(InputError, match=message):
        CachedTeacher(str(tmp_path))


def test_the_same_name_in_two_files(tmp_path: Path) -> None:
    written(tmp_path / "1.h5", NAMES[:6])
    written(tmp_path / "2.h5", NAMES[5:])
    with pytest.raises(InputError, match="image5"):
        CachedTeacher(str(tmp_path))


def test_vectors_compared_otherwise_keep_their_length(tmp_path: Path) -> None:
    teacher = joined(written(tmp_path / "t.h5", NAMES, metric="euclidean"), NAMES)
    lengths = torch.linalg.vector_norm(teacher.read_rows(np.arange(12)), dim=1)
    assert (lengths > 1.5).any()
    assert teacher.metric == "euclidean"


def test_half_precision_is_widened(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float16)
    teacher = joined(written(tmp_path / "t.h5", NAMES, vectors=vectors), NAMES)
    found = teacher.read_rows(np.arange(12))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, functional.normalize(torch.from_numpy(vectors).float()))


def test_a_vector_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t.h5", NAMES)
    with h5py.File(path, "r+") as file:
        file["embeddings"][7, 2] = np.nan
    teacher = joined(path, NAMES[::-1])
    teacher.read_rows(np.arange(4))  # nobody has looked at that row yet
    with pytest.raises(InputError, match=r"t\.h5: the vector of image7 is not finite"):
        teacher.read_rows(np.arange(12))


def test_views_are_chosen_by_draw(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 3, 4)).astype(np.float32)
    how = '{"augment":"crop","seed":7}'
    flat = vectors.reshape(12, 12)
    path = written(tmp_path / "t.h5", NAMES, vectors=flat, views=3, preprocess=how)
    teacher = joined(path, NAMES)
    assert (teacher.dim, teacher.views, teacher.augmentation) == (4, 3, ("crop", 7))
    rows, draws = np.array([5, 5, 0, 11]), np.array([0, 4, 8, 300])
    expected = torch.from_numpy(vectors[rows, draws % 3])
    torch.testing.assert_close(teacher.read_rows(rows, draws), functional.normalize(expected))
    with pytest.raises(InputError, match="3 views"):
        embeddings.read(path)


@pytest.mark.parametrize("how", ["", "[]", "{}", '{"augment":1,"seed":2}', "nonsense"])
def test_views_of_unknown_making_are_refused(tmp_path: Path, how: str) -> None:
    path = written(tmp_path / "t.h5", NAMES, views=5, preprocess=how)
    with pytest.raises(InputError, match="how its views were made"):
        CachedTeacher(str(path))


def online(**settings) -> OnlineTeacher:
    teacher = model(dim=6, seed=3, **settings)
    source = Source(teacher, "digest", (("model", "t.safetensors", "digest"),), (), {})
    return OnlineTeacher(source, device=torch.device("cpu"), precision="fp32", stages=None)


def batch_of(augment: str) -> Batch:
    of = manifest(each=4)
    rows = [(row, 0) for row in range(len(of))]
    return next(load(images(of, model(), augment), [rows], workers=0))


def test_an_online_teacher_learns_nothing_and_is_asked_in_evaluation_mode() -> None:
    teacher = online()
    before = {key: value.clone() for key, value in teacher._model.state_dict().items()}
    batch = batch_of("affine")
    first, second = teacher.embed_batch(batch), teacher.embed_batch(batch)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not first.is_inference()  # so that backward may keep it
    torch.testing.assert_close(torch.linalg.vector_norm(first, dim=1), torch.ones(len(first)))
    for key, value in teacher._model.state_dict().items():
        assert torch.equal(before[key], value), key
    assert teacher.inputs == (("--teacher", "t.safetensors", "digest"),)


def test_online_equals_cached_where_both_see_the_centre(tmp_path: Path) -> None:
    teacher, of = online(), manifest(each=4)
    batch = batch_of("center")
    with torch.inference_mode():
        vectors = teacher._model(batch.inputs, raw=True).numpy()
    path = tmp_path / "t.h5"
    embeddings.write(path, Embeddings(of.names[::-1], vectors[::-1]))
    cached = CachedTeacher(str(path))
    cached.join(of.names)
    torch.testing.assert_close(cached.embed_batch(batch), teacher.embed_batch(batch))


def test_crops_are_resized_for_a_teacher_of_another_size() -> None:
    teacher = online(image_size=32, resize=32)
    batch = batch_of("center")
    expected = functional.interpolate(
        batch.inputs.float(), (32, 32), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        vectors = functional.normalize(teacher._model(expected, raw=True))
    torch.testing.assert_close(teacher.embed_batch(batch), vectors)
    assert batch.inputs.shape[-1] == SIZE


def test_what_names_a_file_of_vectors(tmp_path: Path) -> None:
    other = tmp_path / "model"
    other.write_bytes(b"no HDF5")
    assert not is_file_of_vectors(str(other))
    assert is_file_of_vectors(str(written(tmp_path / "vectors", NAMES)))
    assert all(map(is_file_of_vectors, ["t.h5", "shards", "shards/*.h5"]))
    assert not any(map(is_file_of_vectors, ["timm:resnet50", "m.safetensors"]))


SCRIPT = """
import resource, sys
import h5py, numpy as np
from mltool.engine.teachers import CachedTeacher
path, rows, dim = sys.argv[1], int(sys.argv[2]), 2048
teacher = CachedTeacher(path)
teacher.join(np.char.mod(b"image%07d", np.arange(rows)[::-1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
generator = np.random.default_rng(0)
for step in range(150):
    vectors = teacher.read_rows(generator.integers(0, rows, 128))
    assert vectors.shape == (128, dim)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    """150 batches of a sparse file of 1 GiB: their pages alone would be 150 MiB and more."""
    rows, path = 2**17, tmp_path / "large.h5"
    names = np.char.mod(b"image%07d", np.arange(rows))
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = np.bytes_("mltool-embeddings"), 1
        file["names"], file["labels"] = names, np.zeros(rows, np.int64)
        space = h5py.h5s.create_simple((rows, 2048))
        h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F32LE, space, layout)
    words = [sys.executable, "-c", SCRIPT, str(path), str(rows)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40, done.stdout
    assert path.stat().st_blocks * 512 < 2**27


def test_embed_says_how_views_were_made() -> None:
    spec, source = model().spec, images(manifest(), model())
    plain, views = EmbedOptions(), EmbedOptions(views=2)
    assert _preprocess(plain, source, spec, seed=4) == spec.preprocess
    many = _preprocess(views, source, spec, seed=4)
    assert '"augment":"crop:scale=0.2,' in many
    assert '"seed":4' in many
