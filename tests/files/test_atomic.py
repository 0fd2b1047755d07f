"""A file appears whole or not at all, whatever fails and whoever else writes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mltool.errors import ResourceError
from mltool.files import atomic

OLD, NEW = b"old bytes", b"new bytes" * 1000


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def in_child(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "out"
    atomic.write(path, OLD)
    assert path.read_bytes() == OLD
    atomic.write(str(path), NEW)
    assert path.read_bytes() == NEW
    assert names(tmp_path) == ["out"]


def test_the_old_file_is_there_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(OLD)
    with atomic.open_output(path) as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
        (temporary,) = set(names(tmp_path)) - {"out"}
        assert temporary.startswith(".out.mltool-tmp.")
        assert f".{os.getpid()}." in temporary
    assert path.read_bytes() == NEW


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(OLD)
    with pytest.raises(ZeroDivisionError), atomic.open_output(path) as file:
        file.write(NEW[: 1 // 0])
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["out"]


def test_an_error_of_an_input_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.open_output(tmp_path / "out"):
        (tmp_path / "missing input").read_bytes()
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "fchmod"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_every_failing_call_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "out"
    path.write_bytes(OLD)
    path.chmod(0o600)

    def fail(*arguments: object, **settings: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(ResourceError) as caught:
            atomic.write(path, NEW)
    assert str(path) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 100_000])
def test_file_size_limit_is_exit_6(tmp_path: Path, size: int) -> None:
    path = tmp_path / "out"
    path.write_bytes(OLD)
    done = in_child(
        "import sys, resource\n"
        "from mltool.errors import MltoolError\n"
        "from mltool.files import atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n"
        "    atomic.write(sys.argv[1], bytes(200_000))\n"
        "except MltoolError as error:\n"
        "    print(error)\n"
        "    sys.exit(error.exit_code)\n",
        path,
        size,
    )
    assert done.returncode == 6, done.stderr
    assert "File too large" in done.stdout
    assert "ulimit" in done.stdout
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o000])
def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        atomic.write(tmp_path / "out", NEW)
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o444])
def test_an_old_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "out"
    path.write_bytes(OLD)
    path.chmod(mode)
    atomic.write(path, NEW)
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_bytes() == NEW


def test_a_symlink_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/real")
    for data in (OLD, NEW):  # dangling at first
        atomic.write(link, data)
        assert link.is_symlink()
        assert (tmp_path / "there/real").read_bytes() == data
    assert names(tmp_path) == ["link", "there"]


def test_targets_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(OLD)
    wrong = {
        "/dev/full": "regular",
        tmp_path: "folder",
        f"{tmp_path}/new/": "folder",
        tmp_path / "pipe": "regular",
        tmp_path / "loop": "loop",
        tmp_path / "file/below": "a part of the path is a file",
        tmp_path / "missing/out": "create its folder first",
        tmp_path / ("n" * 256): "shorter",
    }
    before = names(tmp_path)
    for path, word in wrong.items():
        for attempt in (lambda path: atomic.write(path, NEW), atomic.check_writable):
            with pytest.raises(ResourceError) as caught:
                attempt(path)
            assert word in str(caught.value)
            assert str(path) in str(caught.value)
    assert names(tmp_path) == before


def test_long_names_leave_room_for_the_temporary(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        with atomic.claim(tmp_path / name):
            atomic.write(tmp_path / name, NEW)
    assert len(names(tmp_path)) == 2


def test_check_writable_knows_the_free_space(tmp_path: Path) -> None:
    atomic.check_writable(tmp_path / "out", 1000)
    with pytest.raises(ResourceError, match="it needs 1,152,921,504,606,846,976 bytes"):
        atomic.check_writable(tmp_path / "out", 2**60)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="not writable"):
        atomic.check_writable(tmp_path / "out")
    tmp_path.chmod(0o700)


WRITE_FOREVER = """
import sys
from mltool.files import atomic
with atomic.claim(sys.argv[1]):
    print("claimed", flush=True)
    while True:
        atomic.write(sys.argv[1], b"x" * 3_000_000)
"""

CLAIM = """
import sys
from mltool.errors import MltoolError
from mltool.files import atomic
try:
    with atomic.claim(sys.argv[1]):
        atomic.write(sys.argv[1], b"mine")
except MltoolError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start_writer(path: Path) -> subprocess.Popen:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"claimed\n"
    return writer


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def test_kill_leaves_a_whole_file_and_the_next_run_tidies(tmp_path: Path) -> None:
    path = tmp_path / "out"
    left = 0
    for number in range(8):
        writer = start_writer(path)
        time.sleep(0.003 * number)
        kill(writer)
        assert not path.exists() or path.stat().st_size == 3_000_000
        left += len(names(tmp_path)) - path.exists() - 1  # one lock file
        assert in_child(CLAIM, path).returncode == 0
        assert names(tmp_path) == ["out"]
        path.unlink()
    assert left > 0, "no kill hit a write, so nothing was shown"


def test_two_writers_of_one_output(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writer = start_writer(path)
    try:
        second = in_child(CLAIM, path)
        assert second.returncode == 6
        assert f"process {writer.pid} on {os.uname().nodename}" in second.stdout
        assert "busy" in second.stdout
        assert in_child(CLAIM, tmp_path / "other").returncode == 0
    finally:
        kill(writer)
    assert in_child(CLAIM, path).returncode == 0
    assert names(tmp_path) == ["other", "out"]


def test_forked_workers_do_not_keep_the_claim(tmp_path: Path) -> None:
    path = tmp_path / "out"
    script = (
        "import os, sys, time\n"
        "from mltool.files import atomic\n"
        "with atomic.claim(sys.argv[1]):\n"
        "    if os.fork() == 0:\n"
        "        os.close(1)\n"
        "        time.sleep(20)\n"
        "        os._exit(0)\n"
        "    print('claimed', flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"claimed\n"
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    try:
        assert in_child(CLAIM, path).returncode == 0
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.stdout.close()


def test_sweep_tells_live_from_stale(tmp_path: Path) -> None:
    live = tmp_path / ".out.mltool-tmp.host.1.aaaa"
    stale = [
        ".out.mltool-tmp.host.2.bbbb",
        ".out.partial.mltool-tmp.host.2.cccc",
        ".out.history.json.mltool-tmp.host.2.dddd",
    ]
    foreign = [".outer.mltool-tmp.host.2.eeee", ".out.backup", "out.mltool-tmp.host.2.ffff"]
    for name in [live.name, *stale, *foreign]:
        (tmp_path / name).touch()
    with open(live) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        atomic.sweep(tmp_path / "out")
    assert names(tmp_path) == sorted([live.name, *foreign])


def test_claim_sweeps_before_the_work(tmp_path: Path) -> None:
    (tmp_path / ".out.mltool-tmp.host.2.bbbb").touch()
    with atomic.claim(tmp_path / "out"):
        assert names(tmp_path) == [".out.mltool-lock"]


def test_sweep_during_a_write_of_the_same_process(tmp_path: Path) -> None:
    with atomic.open_output(tmp_path / "out") as file:
        file.write(NEW)
        atomic.sweep(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == NEW


def test_a_dead_claim_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    lock = tmp_path / ".out.bin.mltool-lock"
    atomic.end_dead_claim(path)
    assert not list(tmp_path.iterdir())
    lock.write_text("host 1\n")
    atomic.end_dead_claim(path)
    assert not list(tmp_path.iterdir())


def test_claim_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic.claim(tmp_path / "out"):
        assert len(names(tmp_path)) == 1 // 0
    assert names(tmp_path) == []


def test_publish_renames_and_keeps_the_mode(tmp_path: Path) -> None:
    path, partial = tmp_path / "out", tmp_path / "out.partial"
    path.write_bytes(OLD)
    path.chmod(0o640)
    partial.write_bytes(NEW)
    atomic.publish(partial, path)
    assert path.read_bytes() == NEW
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["out"]


def test_readers_see_one_whole_version(tmp_path: Path) -> None:
    path = tmp_path / "out"
    atomic.write(path, bytes([0]) * 3_000_000)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            data = path.read_bytes()
            assert len(data) == 3_000_000
            assert len(set(data[::1000])) == 1
    finally:
        kill(writer)


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic.claim(tmp_path / "out"):
        atomic.write(tmp_path / "out", NEW)
    assert "no file locks here" in caplog.text
    assert names(tmp_path) == ["out"]
