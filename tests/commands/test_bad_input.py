"""Bad input never ends in a traceback: one line that names the file, and the right status."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

Run = Callable[..., subprocess.CompletedProcess]
TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "--dim", 16, "-j", 0)


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """The message is short, names what it must, and stdout says nothing."""
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    message = done.stderr
    for word in words:
        assert word in message, message


# what needs neither torch nor the images is refused in tests/test_usage.py
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arch", "resnet51"], "did you mean resnet"),
        (["--classes-per-batch", "9"], "5 usable classes"),
        (["--small-classes", "error", "--images-per-class", "99"], "--small-classes"),
        (["--device", "gpu"], "no device"),
        (["--resize", "16", "--image-size", "32"], "smaller than the crop"),
        (["--select", "accuracy", "--val", "digits:test"], "precision@1"),
        (["--classes", "7-9"], "classes"),
    ],
)
def test_wrong_settings_of_train(
    photos: Path, tmp_path: Path, options: list[str], message: str, run: Run
) -> None:
    done = run("train", photos, "-o", tmp_path / "m.safetensors", *TINY, *options, status=None)
    assert done.returncode in (2, 5), done.stderr
    refused(done, message)
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_not_there(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "m.safetensors"
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("label\na\n")
    refused(run("train", tmp_path / "none", "-o", out, status=5), "none")
    refused(run("train", tmp_path / "empty", "-o", out, status=5), "empty")
    refused(run("train", tmp_path / "list.csv", "-o", out, status=5), "list.csv", "path")
    refused(run("train", "omniglto:/x", "-o", out, status=None), "omniglot")
    refused(run("train", "digits", "-o", out, status=2), "train", "test")


def test_too_few_classes_or_images(tmp_path: Path, photos: Path, run: Run) -> None:
    one = tmp_path / "one"
    shutil.copytree(photos / "class0", one / "class0")
    out = tmp_path / "m.safetensors"
    refused(run("train", one, "-o", out, *TINY, status=5), "class")
    singles = tmp_path / "singles"
    for number in range(4):
        (singles / f"c{number}").mkdir(parents=True)
        shutil.copy(photos / f"class{number}/0.jpg", singles / f"c{number}/0.jpg")
    done = run("train", singles, "-o", out, *TINY, "--epochs", 1)
    assert "4 classes have fewer than" in done.stderr
    words = ("--small-classes", "skip")
    refused(run("train", singles, "-o", out, *TINY, *words, status=5), "class")


def test_broken_images_stop_or_are_left_out(
    tmp_path: Path, photos: Path, model: Path, run: Run
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "class0/0.jpg").write_bytes(b"")
    (folder / "class1/1.jpg").write_bytes((photos / "class1/1.jpg").read_bytes()[:300])
    (folder / "class2/2.jpg").write_text("<html>not found</html>")
    out = tmp_path / "x.h5"
    refused(run("embed", model, folder, "-o", out, status=5), "0.jpg", "empty")
    done = run("embed", model, folder, "-o", out, "--on-bad-image", "skip", status=3)
    assert done.stderr.count("left out") >= 3
    assert len(embeddings.read(out)) == 37
    run("embed", model, folder, "-o", out, "--on-bad-image", "ignore")
    trained = tmp_path / "m.safetensors"
    refused(run("train", folder, "-o", trained, *TINY, "--epochs", 1, "-b", 40, status=5), ".jpg")
    run("train", folder, "-o", trained, *TINY, "--epochs", 1, "--on-bad-image", "skip", status=3)
    assert trained.exists()


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_runs_nothing(tmp_path: Path, photos: Path, run: Run) -> None:
    canary = tmp_path / "canary"
    hostile = tmp_path / "model.pth"
    hostile.write_bytes(pickle.dumps(Canary(canary)))
    refused(run("embed", hostile, photos, "-o", tmp_path / "x.h5", status=5), "model.pth", "pickle")
    words = ("train", photos, "-o", tmp_path / "m", *TINY, "--weights", hostile)
    refused(run(*words, status=5), "model.pth")
    refused(run("verify", hostile, status=5), "model.pth")
    assert not canary.exists()


def test_damaged_and_foreign_files(tmp_path: Path, photos: Path, model: Path, run: Run) -> None:
    short = tmp_path / "short.safetensors"
    short.write_bytes(model.read_bytes()[:-100])
    refused(run("embed", short, photos, "-o", tmp_path / "x.h5", status=5), "short.safetensors")
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["data"] = np.zeros(3)
    refused(run("evaluate", foreign, status=5), "foreign.h5")
    linked = tmp_path / "linked.h5"
    with h5py.File(linked, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "mltool-embeddings", 1
        file["embeddings"] = h5py.ExternalLink("/etc/passwd", "x")
    refused(run("evaluate", linked, status=5), "linked.h5")


def test_vectors_that_are_not_numbers(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "nan.h5"
    vectors = np.ones((4, 3), np.float32)
    embeddings.write(path, Embeddings(list("abcd"), vectors, [0, 0, 1, 1]))
    data = bytearray(path.read_bytes())
    start = data.index(vectors.tobytes())
    data[start : start + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    refused(run("evaluate", path, status=5), "nan.h5", "a")
    refused(run("search", path, path, status=5), "nan.h5", "a")
    refused(run("index", path, "-o", tmp_path / "i.h5", status=5), "nan.h5", "a")


def test_an_output_never_replaces_its_input(tmp_path: Path, run: Run) -> None:
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    for name in (path, other):
        embeddings.write(name, Embeddings(list("abcd"), np.eye(4), [0, 0, 1, 1]))
    before = path.read_bytes()
    for words in (
        ("index", path),
        ("search", other, path),
        ("search", path, other),
        ("evaluate", path),
        ("evaluate", other, path),
        ("plot", "ranking", path),
    ):
        refused(run(*words, "-o", path, status=2), "a.h5", "input and output")
        assert path.read_bytes() == before


def test_asking_for_all_hits_takes_no_memory_for_more(tmp_path: Path, run: Run) -> None:
    path, out = tmp_path / "a.h5", tmp_path / "hits.tsv"
    embeddings.write(path, Embeddings(list("abcd"), np.eye(4), [0, 0, 1, 1]))
    run("search", path, path, "-k", 10**12, "-o", out)
    assert len(out.read_text().splitlines()) in {16, 17}


def test_dimensions_that_do_not_match(tmp_path: Path, run: Run) -> None:
    for dim in (3, 4):
        vectors = np.eye(4, dim, dtype=np.float32)
        embeddings.write(tmp_path / f"{dim}.h5", Embeddings(list("abcd"), vectors, [0, 0, 1, 1]))
    refused(run("evaluate", tmp_path / "3.h5", tmp_path / "4.h5", status=5), "3", "4")


def test_outputs_that_cannot_be_written(
    tmp_path: Path, photos: Path, model: Path, run: Run
) -> None:
    for out in ("/dev/full", tmp_path, tmp_path / "none" / "x.h5", "/proc/x.h5"):
        refused(run("embed", model, photos, "-o", out, status=6), str(out))


def test_a_full_disk_leaves_the_old_output(
    tmp_path: Path, photos: Path, model: Path, run: Run
) -> None:
    out, limited = tmp_path / "out" / "x.h5", tmp_path / "limited.py"
    out.parent.mkdir()
    out.write_bytes(b"old")
    limited.write_text(
        "import resource, signal\n"
        "from mltool.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "main()\n"
    )
    done = run("embed", model, photos, "-o", out, script=limited, status=6)
    refused(done, "x.h5")
    assert out.read_bytes() == b"old"
    assert [path.name for path in out.parent.iterdir()] == ["x.h5"]


def test_closed_and_full_stdout(model: Path) -> None:
    command = [sys.executable, "-m", "mltool"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*command, "list", "losses"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*command, "info", model], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_input_is_never_the_output(tmp_path: Path, photos: Path, model: Path, run: Run) -> None:
    mine = tmp_path / "m.safetensors"
    shutil.copy(model, mine)
    words = ("train", photos, *TINY, "--init", mine, "-o", mine)
    refused(run(*words, status=2), "input and output")
    assert mine.read_bytes() == model.read_bytes()


def test_wrong_config_files(tmp_path: Path, photos: Path, run: Run) -> None:
    config = tmp_path / "run.toml"
    for text, word in (("[trian]\nlr = 1\n", "train"), ("train = 3\n", "table"), ("=", "TOML")):
        config.write_text(text)
        refused(run("train", photos, "-o", "x", "--config", config, status=2), "run.toml", word)


def test_odd_image_sizes_are_embedded(tmp_path: Path, model: Path, run: Run) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for number, (size, mode) in enumerate(
        [((1, 1), "RGB"), ((3, 900), "L"), ((50, 40), "P"), ((50, 40), "CMYK"), ((20, 20), "I;16")]
    ):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, size).save(folder / f"{number}.{suffix}")
    run("embed", model, folder, "-o", tmp_path / "odd.h5")
    assert len(embeddings.read(tmp_path / "odd.h5")) == 5
