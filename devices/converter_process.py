"""A converter that stays alive between models: loading its libraries takes longer than one conversion."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, Any, cast

from ..errors import MeasurementError
from .conversion import _ending, _last_line

START_LIMIT_S = 180.0
"""Until the process has loaded its libraries."""


class ConverterProcess:
    """Talks to a converter by lines of JSON: one request a line to its standard input, one answer a
    line back. The first line says that it is ready.

    The process starts at the first request, and again at the next one after it crashed, hung or was
    stopped. It is gone at the latest when this object is.

    Args:
        command: Program and arguments; no shell is involved. It must end when its standard input closes.
        what: The converter's name in messages.
        limit_s: Seconds for one request.
    """

    def __init__(self, command: Sequence[str], *, what: str, limit_s: float) -> None:
        self._command, self._what, self._limit_s = list(command), what, limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        self._pending = b""
        self._lock = threading.Lock()
        self._end: Callable[[], Any] = lambda: None

    def __call__(self, **request: Any) -> Mapping[str, Any]:
        """The answer to ``request``.

        Raises:
            MeasurementError: One line: it does not start, crashed, hung, or says that this model fails.
        """
        with self._lock:
            process = self._running()
            try:
                cast(IO[bytes], process.stdin).write(json.dumps(request).encode() + b"\n")
                cast(IO[bytes], process.stdin).flush()
            except OSError:  # it ended: reading says how
                pass
            answer = self._read(process, self._limit_s)
        if "error" in answer:
            raise MeasurementError(f"{self._what} failed: {answer['error']}")
        return answer

    def stop(self) -> None:
        """Ends the process, if it runs."""
        self._end()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        self._log.seek(0)
        self._log.truncate()
        self._pending = b""
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except OSError as error:
            raise MeasurementError(f"{self._what} did not start: {error.strerror or error}") from error
        self._process = process
        self._end = weakref.finalize(self, partial(_kill, process))
        self._read(process, START_LIMIT_S)
        return process

    def _read(self, process: subprocess.Popen[bytes], limit_s: float) -> Mapping[str, Any]:
        """The next line of the process; it is stopped if there is none in time."""
        line = self._line(cast(IO[bytes], process.stdout).fileno(), limit_s)
        if line is None:
            self.stop()
            raise MeasurementError(f"{self._what} gave no result within {limit_s:g} s")
        try:
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("not an object")
        except ValueError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
            code = process.poll()
            ending = "wrote no answer" if code is None else _ending(code)
            self.stop()
            raise MeasurementError(f"{self._what} {ending}{_last_line(self._log)}") from error
        return answer

    def _line(self, stream: int, limit_s: float) -> bytes | None:
        """A line, what there is of one when the stream ends, or None when the time is over."""
        end = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                piece = os.read(stream, 65536)
                if not piece:
                    break
                self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
