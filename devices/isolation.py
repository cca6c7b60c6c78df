"""Runs rounds of measuring in child processes that may crash, hang or be killed.

The parent holds the clock: a model that gives no result within ``protocol.timeout_s`` costs its
process group, the models after it go on in a new process, and the culprit is tried once more,
alone. Nothing that a model or a runtime does there reaches the search.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self, cast

from ..errors import DeviceError
from .jobs import RoundJob, Sample
from .load import generated
from .worker import REFERENCE

STARTUP_LIMIT_S = 120.0
"""A child must have loaded its runtime by then (torch on a slow disk takes long)."""


@dataclass
class RoundResult:
    """Samples and failures of one round, by the model's index in the job."""

    samples: dict[int, Sample] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


class DeviceLostError(DeviceError):
    """The machine that measures cannot be reached any more. A study goes on when it is back.

    ``result`` holds what it measured in its last round.
    """

    def __init__(self, problem: str, *, result: RoundResult | None = None, **details: Any) -> None:
        super().__init__(problem, **details)
        self.result = RoundResult() if result is None else result


@dataclass(frozen=True)
class _Death:
    """How a child ended before it was done; ``model`` is what it was busy with, if anything."""

    model: int | None
    reason: str


def run_here(
    job: RoundJob,
    on_model: Callable[[int], None] | None = None,
    *,
    on_start: Callable[[int], None] | None = None,
    result: RoundResult | None = None,
) -> RoundResult:
    """:func:`run_round` on the quietest cores of this machine, while nobody else measures on it, beside the
    load that the job asks for."""
    # The look for a quiet core lets a waiting worker take its turn.
    cpus = quiet_cores(job.threads) if job.protocol.pin else ()
    placed = replace(job, cpus=cpus, realtime=job.protocol.realtime and realtime_is_safe(cpus))
    with machine_to_oneself(), generated(job.load):
        return run_round(placed, on_model, on_start=on_start, result=result)


def run_round(
    job: RoundJob,
    on_model: Callable[[int], None] | None = None,
    *,
    on_start: Callable[[int], None] | None = None,
    result: RoundResult | None = None,
) -> RoundResult:
    """Times every model of ``job`` in a child process, and in further ones after a crash or hang.

    Args:
        job: The round.
        on_model: Called with a model's index when it has a result or failed.
        on_start: Called with a model's index when it is loaded and timed.
        result: Filled as results come, for whoever wants them before the round ends.

    Raises:
        DeviceError: If the runtime does not start, or cannot run the reference model.
    """
    result = RoundResult() if result is None else result
    waiting, suspects = list(range(len(job.models))), dict[int, str]()
    while waiting:
        death = _run_process(job, waiting, result, on_model, on_start)
        done = result.samples.keys() | result.errors.keys()
        if death is None:
            break
        if death.model is None:
            raise DeviceError(f"the measuring process {death.reason}", field="runner", value=job.runner)
        suspects[death.model] = death.reason
        waiting = [index for index in waiting if index not in done and index not in suspects]
    for index in suspects:
        death = _run_process(job, [index], result, on_model, on_start)
        if death is not None:
            result.errors[index] = f"{death.reason} (twice, the second time alone)"
            if on_model:
                on_model(index)
    return result


def _run_process(
    job: RoundJob,
    indices: list[int],
    result: RoundResult,
    on_model: Callable[[int], None] | None,
    on_start: Callable[[int], None] | None,
) -> _Death | None:
    """One child for the models ``indices``; what it measured is added to ``result``."""
    busy: int | None = None
    with Child(job.only(tuple(job.models[index] for index in indices))) as child:
        deadline = time.monotonic() + STARTUP_LIMIT_S
        while True:
            try:
                event = child.event(deadline)
            except TimeoutError:
                limit = job.protocol.timeout_s
                what = f"gave no result within {limit:g} s (protocol.timeout_s)"
                return _Death(busy, what if busy is not None else "did not start, or hung on the reference model")
            if event is None:
                return _Death(busy, child.cause_of_death())
            kind = event["event"]
            if kind == "done":
                return None
            if kind == "start":
                busy = None if event["model"] == REFERENCE else indices[event["model"]]
                deadline = time.monotonic() + job.protocol.timeout_s
                if on_start and busy is not None:
                    on_start(busy)
            elif kind in ("result", "failed"):
                index = indices[event["model"]]
                if kind == "result":
                    result.samples[index] = Sample.from_dict(event["sample"])
                else:
                    result.errors[index] = event["error"]
                if on_model:
                    on_model(index)


class Child:
    """A measuring process in a group of its own; leaving the context kills the whole group."""

    def __init__(self, job: RoundJob) -> None:
        self._job = job
        self._lines: list[bytes] = []
        self._rest = b""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        threads = str(self._job.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **dict.fromkeys(names, threads)},
            start_new_session=True,
        )
        self._input, self._output = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        # A long job fills the pipe before a hanging child reads it, so the parent does not wait for that.
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the group outlives a crashed leader if a runtime forked
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._sender.join()
        for stream in (self._input, self._output, self._errors):
            with contextlib.suppress(OSError):
                stream.close()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            self._input.write(self._job.to_json().encode() + b"\n")
            self._input.flush()

    def event(self, deadline: float) -> dict[str, Any] | None:
        """The next event; None when the stream ended.

        Raises:
            TimeoutError: If none came before ``deadline`` (``time.monotonic``).
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while not self._lines:
                if not selector.select(max(deadline - time.monotonic(), 0.0)):
                    raise TimeoutError
                block = os.read(self._output.fileno(), 1 << 16)
                if not block:
                    return None
                *lines, self._rest = (self._rest + block).split(b"\n")
                self._lines.extend(lines)
        event: dict[str, Any] = json.loads(self._lines.pop(0))
        return event

    def cause_of_death(self) -> str:
        """One line on how the process ended, with the last that it printed."""
        code = self._process.wait()
        with contextlib.suppress(ValueError):
            if code < 0:
                return f"crashed with {signal.Signals(-code).name}{self._last_words()}"
        return f"ended with exit code {code}{self._last_words()}"

    def _last_words(self, width: int = 200) -> str:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 4096, 0))
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
        return f": {last[:width]}" if last else ""


# ---- Where and when ------------------------------------------------------------------------


def quiet_cores(n: int, window_s: float = 0.1) -> tuple[int, ...]:
    """The ``n`` least busy cores that this process may use; empty where nothing can be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    allowed = sorted(os.sched_getaffinity(0))
    if n >= len(allowed):
        return tuple(allowed) if n == len(allowed) else ()
    before = _busy_ticks()
    time.sleep(window_s)
    after = _busy_ticks()
    return tuple(sorted(allowed, key=lambda core: after.get(core, 0) - before.get(core, 0))[:n])


def _busy_ticks() -> dict[int, int]:
    """Clock ticks since the start, by core, that were neither idle nor waited for a disk: Linux's own
    counters, as a remote host need not have psutil."""
    ticks: dict[int, int] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, *counts = line.split()
            if name.startswith("cpu") and name != "cpu":
                user, nice, system, _, _, *others = map(int, counts)
                ticks[int(name[3:])] = user + nice + system + sum(others[:3])  # interrupts and stolen time
    return ticks


def realtime_is_safe(cpus: tuple[int, ...]) -> bool:
    """Whether SCHED_FIFO on ``cpus`` leaves the machine usable: a core is left, or Linux keeps a
    share of each second for the others."""
    if not cpus:
        return False
    if len(cpus) < (os.cpu_count() or 1):
        return True
    try:
        return int(Path("/proc/sys/kernel/sched_rt_runtime_us").read_text()) > 0
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def machine_to_oneself() -> Iterator[None]:
    """One measuring process at a time on this machine: two would time each other.

    Waits for another worker's round to end. The lock goes with its holder; where it cannot be
    taken (a read-only temporary folder, a system without ``fcntl``), measuring goes on without.
    """
    descriptor = None
    try:
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            descriptor = os.open(Path(tempfile.gettempdir()) / "gnomon-measuring.lock", os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
