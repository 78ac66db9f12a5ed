"""Commands that start at once: a server imports the heavy libraries and forks for each of them.

A pipeline's stages spend most of their time on importing torch, transformers, open_clip and DVC. In the tests'
workspaces `python` and `dvc` are small programs that hand their arguments, environment and streams to the server. Its
child goes on like a fresh interpreter: nothing of featherseg is imported beforehand, so that the workspace's own code
runs. Everything but `python -m featherseg` and `dvc` is started as usual, and these are, too, where `COLD` is set.
"""

import array
import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("torch", "transformers.models.clipseg.modeling_clipseg", "open_clip", "accelerate", "pandas",
             "pyarrow.parquet", "safetensors.torch", "dvc.cli", "dvc.repo.reproduce", "dvc.repo.experiments")
STREAMS = {"stdin": "r", "stdout": "w", "stderr": "w"}
COLD = "FEATHERSEG_COLD_START"
READ_AT_IMPORT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # by libraries, so that a command's own come too late
# run without the packages of the environment, which it does not need
PROGRAM = """#!{python} -IS
import array, json, os, socket, sys

arguments = sys.argv[1:]
command = {own} if {own} != ["python"] else ["python", *arguments[:2]]
if command == ["python", "-m", "featherseg"] or command == ["dvc"]:
    if not os.environ.get("{cold}"):
        server = socket.socket(socket.AF_UNIX)
        server.connect("{address}")
        message = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
        streams = array.array("i", [0, 1, 2])
        server.sendmsg([len(message).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        server.sendall(message)
        sys.exit(int.from_bytes(server.recv(1) or b"\\1", "big"))
os.execv("{real}", ["{real}", *arguments])
"""


@contextlib.contextmanager
def programs(folder: Path) -> Iterator[Path]:
    """A folder with `python` and `dvc`, whose server runs within this context."""
    address = str(folder / "server")
    for name in ("python", "dvc"):
        real = Path(sys.executable).with_name(name)
        text = PROGRAM.format(python=sys.executable, own=[name], cold=COLD, address=address, real=real)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)  # commands wait here while the libraries are imported
        server = subprocess.Popen([sys.executable, __file__, str(listening.fileno())],
                                  pass_fds=[listening.fileno()], env=os.environ | READ_AT_IMPORT)
    try:
        yield folder
    finally:
        server.kill()
        server.wait()


def serve(listening: socket.socket) -> None:
    """Fork for each command that comes in."""
    for library in LIBRARIES:
        importlib.import_module(library)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Run one command in this process, send its status, and end."""
    length, streams, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    descriptors = array.array("i")
    descriptors.frombytes(streams[0][2])
    message = b""
    while len(message) < int.from_bytes(length, "big"):
        message += connection.recv(1 << 16)
    arguments, folder, environment = json.loads(message)
    for number, (name, mode) in enumerate(STREAMS.items()):
        os.dup2(descriptors[number], number)
        setattr(sys, name, open(number, mode, buffering=1, encoding="utf-8", closefd=False))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    status = run(arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    connection.sendall(bytes([status & 255]))
    os._exit(status)


def run(arguments: list[str]) -> int:
    """The status of `dvc ...` or `python -m featherseg ...`."""
    called = Path(arguments[0]).name
    try:
        if called == "dvc":
            sys.argv = arguments
            return importlib.import_module("dvc.cli").main(arguments[1:]) or 0
        sys.argv = arguments[2:]
        sys.path[:0] = [os.getcwd(), *map(os.path.abspath, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        runpy.run_module("featherseg", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
