"""What runs on a remote host for as long as it is connected: times rounds there, and answers with JSON.

Started over ssh by :mod:`gnomon.devices.ssh_link` from code that was copied there (gnomon itself need not be
installed; numpy and the runtime must be). Reads one JSON request a line, writes one JSON event a line.

Requests: ``probe`` (what this machine is), ``round`` (times models), ``alive``.
Events: ``state``; ``start``, ``result``, ``failed`` of a model, ``end`` of a round; ``error`` (the request
failed as a whole); ``alive``.

When the other side ends its stream, or has not been heard for :data:`SILENCE_S`, the measuring process
is killed and this one ends; whoever started it removes the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from ..errors import GnomonError
from .isolation import RoundResult, run_here
from .jobs import RoundJob
from .runner import import_class
from .worker import claim_standard_output

BEAT_S = 5.0
"""Both sides say that often that they are alive."""
SILENCE_S = 30.0
"""A side that was not heard for so long is taken for lost."""

Request = Mapping[str, Any]


def main() -> None:
    """Serves requests until the other side ends or falls silent."""
    write, lock = claim_standard_output(), threading.Lock()

    def events(**event: Any) -> None:
        with lock:
            write(**event)

    requests: SimpleQueue[Request] = SimpleQueue()
    heard = _Heard()
    threading.Thread(target=_listen, args=(requests, heard), daemon=True).start()
    threading.Thread(target=_beat, args=(events, heard), daemon=True).start()
    handlers: dict[str, Callable[[Request, Callable[..., None]], None]] = {"probe": _probe, "round": _round}
    while True:
        request = requests.get()
        try:
            handlers[request["do"]](request, events)
        except GnomonError as error:
            events(event="error", problem=str(error))
        except (ImportError, AttributeError, TypeError, ValueError, KeyError) as error:
            # A package that is missing here, or a device that is written for another machine than this.
            events(event="error", problem=f"{type(error).__name__}: {' '.join(str(error).split())}")


class _Heard:
    """When the other side was last heard."""

    def __init__(self) -> None:
        self.time = time.monotonic()

    def now(self) -> None:
        self.time = time.monotonic()

    def silent(self) -> bool:
        return time.monotonic() - self.time > SILENCE_S


def _listen(requests: SimpleQueue[Request], heard: _Heard) -> None:
    for line in sys.stdin:
        heard.now()
        request = json.loads(line)
        if request["do"] != "alive":
            requests.put(request)
    _end()


def _beat(events: Callable[..., None], heard: _Heard) -> None:
    while not heard.silent():
        try:
            events(event="alive")
        except OSError:
            break
        time.sleep(BEAT_S)
    _end()


def _end() -> None:
    """Ends the main thread wherever it is: its contexts kill the measuring process."""
    os.kill(os.getpid(), signal.SIGTERM)


def _probe(request: Request, events: Callable[..., None]) -> None:
    device = import_class(request["device"])(**request["arguments"])
    events(
        event="state",
        hardware=device.hardware(),
        runtime=device.runtime(),
        cores=device.cores(),
        fingerprint=device.fingerprint().to_dict(),
    )


def _round(request: Request, events: Callable[..., None]) -> None:
    job = replace(RoundJob.from_dict(request["job"]), import_paths=tuple(os.path.abspath(path) for path in sys.path))
    result = RoundResult()

    def on_model(index: int) -> None:
        if index in result.samples:
            events(event="result", model=index, sample=result.samples[index].to_dict())
        else:
            events(event="failed", model=index, error=result.errors[index])

    run_here(job, on_model, on_start=lambda index: events(event="start", model=index), result=result)
    events(event="end")
