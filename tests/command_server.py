"""Commands as real processes, forked from a program that has imported everything, so that it is paid once.

As a program, reads one JSON object a line: `{"folder", "words", "largest"}` starts `wsss` with these words in
a folder and is answered with the process's id; `{"wait", "seconds"}` is answered with its exit status, null
where it had to be killed. Output and messages go to `<folder>.stdout.txt` and `<folder>.stderr.txt`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Ended:
    """A process that has ended: exit status (None: it hung and was killed), output and messages."""

    status: int | None
    out: str
    err: str


class CommandServer:
    """The client's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._folders: dict[int, Path] = {}

    def start(self, folder: Path, words: Sequence[str | Path], *, largest: int | None = None) -> int:
        """Start a command in `folder`, where no file gets more than `largest` bytes; its process's id."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = [str(word) for word in words]
        process = int(self._ask({"folder": str(folder), "words": texts, "largest": largest}))
        self._folders[process] = folder
        return process

    def wait(self, process: int, seconds: float) -> Ended:
        """How a command ends."""
        status = self._ask({"wait": process, "seconds": seconds})
        place = self._folders.pop(process)
        out, err = (place.with_name(f"{place.name}.{name}.txt").read_text() for name in ("stdout", "stderr"))
        return Ended(status, out, err)

    def call(
        self, folder: Path, words: Sequence[str | Path], *, largest: int | None = None, seconds: float = 60
    ) -> Ended:
        """Start a command and wait for its end."""
        return self.wait(self.start(folder, words, largest=largest), seconds)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the program that starts commands has ended"
        return json.loads(answer)


@contextmanager
def command_server() -> Iterator[CommandServer]:
    """Start the program; it ends with the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, __file__], text=True, env=environment, **pipes) as process:
        yield CommandServer(process)
        assert process.stdin is not None
        process.stdin.close()


def _become(folder: str, words: list[str], largest: int | None, writers: Sequence[IO[bytes]]) -> None:
    """The forked process, up to its end."""
    from wsss.cli import main

    os.chdir(folder)
    os.close(0)
    for descriptor, writer in zip((1, 2), writers, strict=True):
        os.dup2(writer.fileno(), descriptor)
        writer.close()
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["wsss", *words]
    status = 1
    try:
        main.run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # taking the interpreter apart takes a second, and copies what the fork shares


def _start(folder: str, words: list[str], largest: int | None) -> tuple[int, list[subprocess.Popen[bytes]]]:
    """Start a command; its id, and the programs that copy what it says, which no limit binds."""
    copying: list[subprocess.Popen[bytes]] = []
    for name in ("stdout", "stderr"):
        with Path(f"{folder}.{name}.txt").open("wb") as file:
            copying.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file))
    writers = [program.stdin for program in copying if program.stdin is not None]
    process = os.fork()
    if process == 0:
        _become(folder, words, largest, writers)
    for writer in writers:
        writer.close()
    return process, copying


def _wait(process: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def _serve() -> None:
    import torch

    from wsss.cli import main  # noqa: F401  (everything is imported before the first fork)
    from wsss.doctor import doctor  # noqa: F401
    from wsss.engine import estimate, label, run  # noqa: F401
    from wsss.export import model_folder, onnx_model, voc_submission  # noqa: F401
    from wsss.report import page  # noqa: F401

    torch.set_num_threads(1)
    copying: dict[int, list[subprocess.Popen[bytes]]] = {}
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            answer = _wait(request["wait"], request["seconds"])
            for program in copying.pop(request["wait"]):
                program.wait()
        else:
            answer, copying[answer] = _start(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
