"""The program for a recipe that calls it dozens of times: forks of one process behind a socket.

python served_program.py SOCKET PREPARE.py    imports all, runs PREPARE.py, answers until killed
The file that `write_client` makes stands for `mltool` in the recipe.
"""

import json
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss  # noqa: F401
import timm  # noqa: F401
import torch

CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
request = json.dumps([sys.argv[1:], os.getcwd()]).encode()
socket.send_fds(server, [request], [0, 1, 2])
sys.exit((server.recv(1) or b"\\x01")[0])
"""
LONGEST = 2**16


def write_client(path: Path, server: Path) -> None:
    """Write the program that passes its words and files on to the server."""
    path.write_text(CLIENT.format(python=sys.executable, path=str(server)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@contextmanager
def serve_recipe(folder: Path, prepare: str) -> Iterator[Path]:
    """Serve the program after the lines `prepare`; yields the file that stands for `mltool`."""
    (folder / "prepare.py").write_text(prepare)
    words = [sys.executable, __file__, folder / "socket", folder / "prepare.py"]
    root = Path(__file__).parent.parent
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    write_client(folder / "mltool", folder / "socket")
    try:
        yield folder / "mltool"
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def run(request: bytes, files: list[int]) -> int:
    """Run one command on the files of the client; return its status."""
    words, folder = json.loads(request)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    from mltool.cli import main

    sys.argv = ["mltool", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
    return 0


def serve(path: str) -> None:
    """Answer every client in a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            status = 1
            try:
                request, files, _, _ = socket.recv_fds(client, LONGEST, 3)
                status = run(request, files)
            finally:
                client.send(bytes([status]))
                os._exit(0)
        client.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    runpy.run_path(sys.argv[2])
    serve(sys.argv[1])
