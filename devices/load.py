"""Generated load: processes that keep cores or the memory bus busy while something is measured.

Levels are counted in processes, so that they mean the same on every machine and can be had again: ``cpu``
processes that compute in their caches, ``memory`` processes that copy more than any cache holds. The system
places them as it places any process. After the contention generator of ApproxDet (Xu et al., SenSys 2020,
section 4), which has levels of CPU, memory bandwidth and GPU.

A process is started by ``python -P -m gnomon.devices.load cpu`` and ends with its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, ClassVar, cast

from ..errors import ConfigError, DeviceError
from ..schema import Record
from .process import end_with_parent

MOST = 64
"""Processes of one kind: more is a slip of the keyboard, not a load."""
STARTUP_LIMIT_S = 60.0
_SQUARE = 96
"""Matrices of 96x96 floats: three of them are 108 KB, in the second-level cache of any core."""
_STREAM_BYTES = 128 << 20
"""Copied over and over: more than a core's share of any last-level cache."""


@dataclass(frozen=True)
class Load(Record):
    """One level of load.

    Args:
        cpu: Processes that compute without pause, one thread each.
        memory: Processes that copy 128 MB from one place to another without pause.
    """

    SCHEMA: ClassVar[str] = "gnomon.load/1"

    cpu: int = 0
    memory: int = 0

    def __post_init__(self) -> None:
        for name in ("cpu", "memory"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
                raise ConfigError(
                    "not a number of processes", field=f"load.{name}", value=value, allowed=f"0 to {MOST}"
                )

    @property
    def kinds(self) -> tuple[str, ...]:
        """One word a process."""
        return ("cpu",) * self.cpu + ("memory",) * self.memory

    def __str__(self) -> str:
        return f"{self.cpu} computing, {self.memory} copying"


@contextlib.contextmanager
def generated(load: Load | None) -> Iterator[None]:
    """Keeps the machine busy inside the context; every process is gone when it is left.

    Raises:
        DeviceError: If a process does not start, or did not last as long as the context.
    """
    if load is None or not load.kinds:
        yield
        return
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_Busy(kind)) for kind in load.kinds]
        deadline = time.monotonic() + STARTUP_LIMIT_S
        for process in processes:
            process.wait_until_busy(deadline)
        yield
        for process in processes:
            process.check()


class _Busy:
    """One process; leaving the context kills it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> _Busy:
        self._errors = tempfile.TemporaryFile()
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.load", self._kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **dict.fromkeys(names, "1")},
            start_new_session=True,
        )
        self._input, self._output = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._input, self._output, self._errors):
            with contextlib.suppress(OSError):
                stream.close()

    def wait_until_busy(self, deadline: float) -> None:
        """Returns when it says that its work has begun."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            ready = selector.select(max(deadline - time.monotonic(), 0.0))
        if not ready or os.read(self._output.fileno(), 16) != b"busy\n":
            raise self._error("did not start")

    def check(self) -> None:
        """Raises DeviceError if it has ended by itself: what was measured was not under this load."""
        if self._process.poll() is not None:
            raise self._error("ended before the measurement")

    def _error(self, problem: str) -> DeviceError:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return DeviceError(f"a {self._kind} process {problem}{f': {lines[-1]}' if lines else ''}", field="load")


# ---- The process -------------------------------------------------------------------------------


def main(kind: str) -> None:
    """Works until it is killed, or its parent ends."""
    end_with_parent()
    {"cpu": compute, "memory": copy}[kind]()


def compute() -> None:
    """Multiplies small matrices."""
    import numpy as np

    a = np.full((_SQUARE, _SQUARE), 1.0 / _SQUARE, np.float32)
    product = np.empty_like(a)
    _say_busy()
    while True:
        np.matmul(a, a, out=product)


def copy() -> None:
    """Copies large arrays."""
    import numpy as np

    source = np.zeros(_STREAM_BYTES // 8)
    source += 1.0  # pages that are only promised would not be read from memory
    target = source.copy()
    _say_busy()
    while True:
        np.copyto(target, source)


def _say_busy() -> None:
    os.write(1, b"busy\n")


if __name__ == "__main__":
    main(sys.argv[1])
