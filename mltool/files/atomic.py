"""The only code that puts bytes under a final name: a file appears whole or not at all.

Bytes go to a temporary sibling `.NAME.mltool-tmp.HOST.PID.RANDOM`, are synced and renamed. The
temporary is locked while it is written, so that whoever meets one later can tell a live writer
from a dead one.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mltool.errors import ResourceError, UsageError

logger = logging.getLogger(__name__)

TEMPORARY = "mltool-tmp"
LOCK = "mltool-lock"
LONGEST_STEM = 120  # bytes of the name that go into a sibling's: names end at 255

REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "delete something or choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder on a writable file system",
    errno.ENOENT: "create its folder first",
    errno.ENOTDIR: "a part of the path is a file; name a folder instead",
    errno.EISDIR: "name a file",
    errno.EFBIG: "raise the file size limit (ulimit -f) or choose another file system",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "name a file that is not a symbolic link to itself",
}


@contextlib.contextmanager
def open_output(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file whose bytes become `path` when the block ends without an error.

    Until then, and after any failure, the old file is untouched and no temporary stays. A file
    that is replaced passes on its mode; a new one has the mode of the umask. Raises ResourceError.
    """
    with report_errors(path):
        final = resolve_target(path)
        temporary, file = _create_temporary(final)
    try:
        try:
            yield file
        except OSError as error:
            if error.filename is not None:  # an input that the block reads, not our output
                raise
            raise as_resource_error(path, error) from error
        with report_errors(path):
            file.flush()
            _publish(file.fileno(), temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):  # the data are synced, or an error is raised already
            file.close()


def write(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Put `data` under `path` whole or not at all. Raises ResourceError."""
    with open_output(path) as file:
        file.write(data)


def publish(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Rename a finished sibling `source` to `path`, synced, with the mode that `path` had.

    Raises ResourceError.
    """
    with report_errors(path):
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _publish(descriptor, Path(source), resolve_target(path))
        finally:
            os.close(descriptor)


def resolve_target(path: str | os.PathLike[str]) -> Path:
    """Return the regular file that `path` stands for, existing or not, behind symbolic links.

    Raises ResourceError for a folder, a device, a pipe or a socket.
    """
    final = Path(os.path.realpath(path))
    with report_errors(path):
        try:
            mode = final.lstat().st_mode
        except FileNotFoundError:
            mode = 0
        if stat.S_ISDIR(mode) or os.fspath(path).endswith(os.sep):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if mode and not stat.S_ISREG(mode):
            raise ResourceError(f"cannot write {path}: it is not a regular file; name another one")
    return final


def check_writable(path: str | os.PathLike[str], size: int = 0) -> None:
    """Fail before hours of work if `path` could not be written or its disk lacks `size` bytes.

    Raises ResourceError.
    """
    folder = resolve_target(path).parent
    with report_errors(path):
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"the folder {folder} is not writable")
        free = shutil.disk_usage(folder).free
        if free < size:
            reason = f"it needs {size:,} bytes, but {folder} has {free:,} left"
            raise OSError(errno.ENOSPC, reason)


def refuse_inputs(path: str | os.PathLike[str], inputs: Iterable[str | None]) -> None:
    """Raise UsageError if the output `path` is one of the `inputs`; what is no file is ignored."""
    for text in inputs:
        if text and os.path.exists(text) and os.path.exists(path) and os.path.samefile(text, path):
            raise UsageError(f"{text} would be input and output at once; name another output")


@contextlib.contextmanager
def claim(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold `path` for this process alone, from before the work until it is written.

    The claim of a dead process is taken over. Temporaries of dead writers are swept, before and
    after the block.
    Raises ResourceError when another process holds it, naming host and process.
    """
    final = resolve_target(path)
    lock = _name_sibling(final, LOCK)
    with report_errors(path):
        descriptor = _open_locked(lock, path)
    try:
        with report_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
        sweep(path)
        yield
        sweep(path)
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def end_dead_claim(path: str | os.PathLike[str]) -> None:
    """End the claim that a killed process left on `path`, and sweep, where nothing else is to do.

    Raises ResourceError when the process is alive.
    """
    if _name_sibling(resolve_target(path), LOCK).exists():
        with claim(path):
            pass  # taken over, it ends with this process's own


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove the temporaries that dead writers of `path`, and of files named after it, left."""
    final = resolve_target(path)
    prefix = f".{_stem(final.name)}."
    with report_errors(path):
        names = os.listdir(final.parent)
    for name in names:
        if name.startswith(prefix) and f".{TEMPORARY}." in name:
            _remove_if_stale(final.parent / name)


@contextlib.contextmanager
def report_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of the block into the ResourceError that says why `path` is not written."""
    try:
        yield
    except OSError as error:
        raise as_resource_error(path, error) from error


def as_resource_error(path: str | os.PathLike[str], error: OSError) -> ResourceError:
    """Return the ResourceError that says why `path` could not be written, and the remedy."""
    reason = error.strerror or str(error)
    remedy = REMEDIES.get(error.errno or 0, "choose another place")
    return ResourceError(f"cannot write {os.fspath(path)}: {reason}; {remedy}")


def _publish(descriptor: int, temporary: Path, final: Path) -> None:
    if final.exists():
        old, new = final.stat().st_mode, os.fstat(descriptor).st_mode
        if stat.S_IMODE(old) != stat.S_IMODE(new):
            os.fchmod(descriptor, stat.S_IMODE(old))
    os.fsync(descriptor)
    os.replace(temporary, final)
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(descriptor)


def _create_temporary(final: Path) -> tuple[Path, BinaryIO]:
    host = socket.gethostname().replace(os.sep, "-")[:32]
    while True:
        suffix = f"{TEMPORARY}.{host}.{os.getpid()}.{secrets.token_hex(4)}"
        temporary = _name_sibling(final, suffix)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)  # the kernel takes the umask off
        _lock(descriptor, wait=True)
        if _is_same_file(descriptor, temporary):  # not swept before it was locked
            return temporary, os.fdopen(descriptor, "wb")
        os.close(descriptor)


def _remove_if_stale(temporary: Path) -> None:
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone meanwhile, or not ours to remove
        return
    try:
        if _lock(descriptor, wait=False):
            temporary.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock a file; return False if another writer holds it, or the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held, or a file system without locks
        return False
    return True


def _open_locked(lock: Path, path: str | os.PathLike[str]) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            # lockf, not flock: forked workers inherit a flock and would outlive a killed owner
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").split()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning("no file locks here: let no other process write %s", path)
                return descriptor
            os.close(descriptor)
            raise _busy(path, owner) from error
        if _is_same_file(descriptor, lock):  # else its owner removed it before we locked it
            return descriptor
        os.close(descriptor)


def _busy(path: str | os.PathLike[str], owner: list[str]) -> ResourceError:
    who = f"process {owner[1]} on {owner[0]}" if len(owner) == 2 else "another process"
    return ResourceError(f"{path} is busy: {who} is writing it; wait, or name another output")


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _name_sibling(final: Path, suffix: str) -> Path:
    return final.with_name(f".{_stem(final.name)}.{suffix}")


def _stem(name: str) -> str:
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_STEM else hashlib.sha256(raw).hexdigest()[:32]
