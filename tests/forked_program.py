"""Run the program in forks of one process that has imported everything.

A new Python spends five seconds on importing torch, timm and scikit-learn; a fork of a process
that has done so starts in 0.1 s. The process is none of pytest's: it has no filters of warnings,
no captured logging and no patches, so a fork behaves as the program does.

A request is one byte with four file descriptors: the request as JSON, then stdin, stdout and
stderr of the fork. Every answer is `ANSWER`: (pid, RUNNING) at once, (pid, exit status) at the end.

What a fork cannot show: variables that libraries read when they are imported (OMP_NUM_THREADS),
another hash seed, what is imported, and how a closed stdout is met at exit. The fixture `spawn`
starts a new Python for these.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parent.parent
ANSWER = struct.Struct("!ii")
RUNNING = -1000  # below minus every signal number


class Program:
    """One run of the program, with the methods of subprocess.Popen that tests use.

    stdin, stdout and stderr are files, not pipes: no run waits for a reader.
    """

    def __init__(
        self, server: "ForkServer", pid: int, words: list[str], stdout: Path, stderr: Path
    ) -> None:
        self.args, self.pid = words, pid
        self.returncode: int | None = None
        self._server, self._stdout, self._stderr = server, stdout, stderr

    @property
    def stderr(self) -> str:
        """Text that the run has written to stderr so far."""
        return self._stderr.read_text()

    def poll(self) -> int | None:
        """Return the exit status, None while the run goes on."""
        if self.returncode is None:
            self.returncode = self._server.wait_for_status(self.pid, seconds=0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the run has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the run at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Return the exit status. Raises TimeoutExpired after killing a run that goes on."""
        if self.returncode is None:
            self.returncode = self._server.wait_for_status(self.pid, seconds=timeout)
        if self.returncode is None:
            self.kill()
            self.returncode = self._server.wait_for_status(self.pid, seconds=60)
            raise subprocess.TimeoutExpired(self.args, timeout, *self._texts())
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end and return (stdout, stderr)."""
        self.wait(timeout)
        return self._texts()

    def _texts(self) -> tuple[str, str]:
        return self._stdout.read_text(), self._stderr.read_text()


class ForkServer:
    """The process that forks the program; it starts with the first request."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mltool-forks-")
        self._requests = 0
        self._channel, theirs = socket.socketpair()
        self._statuses: dict[int, int] = {}
        self._started: list[int] = []
        with theirs:
            # -P: tests/ is no place to import from; a session of its own: Ctrl-C is pytest's
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": _extend_search_path()},
                start_new_session=True,
            )

    def start(
        self,
        *words: object,
        input: str | None = None,  # noqa: A002 - as subprocess.run has it
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        script: Path | None = None,
    ) -> Program:
        """Start `mltool WORDS`, or `python SCRIPT WORDS`, with options of subprocess.run."""
        texts = [str(word) for word in words]
        request = {
            "words": texts,
            "script": script and str(script),
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
        }
        self._requests += 1
        asked, stdin, out, err = (
            Path(self._folder.name, f"{self._requests}.{name}")
            for name in ("request", "stdin", "stdout", "stderr")
        )
        asked.write_text(json.dumps(request))
        stdin.write_text(input or "")
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(path.open(mode))
                for path, mode in zip((asked, stdin, out, err), "rrww", strict=True)
            ]
            socket.send_fds(self._channel, [b"r"], [file.fileno() for file in files])
        while not self._started:  # the first request waits for the imports
            assert self._receive(seconds=120), "no fork of the program within two minutes"
        return Program(self, self._started.pop(), ["mltool", *texts], out, err)

    def wait_for_status(self, pid: int, *, seconds: float) -> int | None:
        """Return a run's exit status, minus the signal that killed it; None if it goes on."""
        end = time.monotonic() + seconds
        while pid not in self._statuses and self._receive(seconds=end - time.monotonic()):
            pass
        return self._statuses.get(pid)

    def close(self) -> None:
        """End the process and all that it forked."""
        self._channel.close()
        self._process.wait(timeout=60)
        self._folder.cleanup()

    def _receive(self, *, seconds: float) -> bool:
        """Take in one answer; False if none came in time."""
        if not select.select([self._channel], [], [], max(0.0, seconds))[0]:
            return False
        answer = self._channel.recv(ANSWER.size, socket.MSG_WAITALL)
        assert answer, "the process that forks the program has ended; see its stderr"
        pid, status = ANSWER.unpack(answer)
        if status == RUNNING:
            self._statuses.pop(pid, None)  # of an earlier process of this number
            self._started.append(pid)
        else:
            self._statuses[pid] = status
        return True


def _extend_search_path() -> str:
    """Return PYTHONPATH with this checkout before all else."""
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(ROOT), *([before] if before else [])])


def serve(channel: socket.socket) -> None:
    """Import everything, then fork the program for every request until the channel is closed."""
    main = _import_everything()
    wakeup, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: set[int] = set()
    while True:
        ready = select.select([channel, wakeup], [], [])[0]
        if wakeup in ready:
            os.read(wakeup, 4096)
            _report_ends(running, channel)
        if channel not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(channel, 1, 4)
        if not message:
            break
        pid = os.fork()
        if not pid:
            for number in (channel.fileno(), wakeup, write):
                os.close(number)
            _become_the_program(main, *descriptors)
        running.add(pid)
        channel.sendall(ANSWER.pack(pid, RUNNING))
        for descriptor in descriptors:
            os.close(descriptor)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _import_everything() -> Callable[[], None]:
    """Import what any command may import and return the program."""
    import faiss  # noqa: F401
    import sklearn.cluster  # noqa: F401
    import timm  # noqa: F401

    import mltool

    for module in pkgutil.walk_packages(mltool.__path__, "mltool."):
        importlib.import_module(module.name)
    gc.freeze()  # collections in forks leave the shared pages alone
    return importlib.import_module("mltool.cli").main


def _report_ends(running: set[int], channel: socket.socket) -> None:
    """Answer with the exit status of every fork that has ended."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            running.discard(pid)
            channel.sendall(ANSWER.pack(pid, os.waitstatus_to_exitcode(status)))


def _become_the_program(main: Callable[[], None], request_file: int, *streams: int) -> NoReturn:
    """Do the request in this process, a fork, and end it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    script = request["script"]
    sys.argv = [script or "mltool", *request["words"]]
    if script:
        sys.path.insert(0, os.path.dirname(script))
    status = _call_for_status(
        lambda: runpy.run_path(script, run_name="__main__") if script else main()
    )
    # what Python does at exit, but for freeing every object, which takes seconds
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _call_for_status(main: Callable[[], object]) -> int:
    """Call the program and return its exit status; an error it does not catch is printed."""
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
