"""A runner whose models misbehave as their names say; importable by the measuring child."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.devices.jobs import GraphJob, ModelJob
from gnomon.devices.local import LocalDevice
from gnomon.devices.runner import GraphFunction, Runner


class MisbehavingRunner(Runner):
    name = "misbehaving"

    def __init__(self, threads: int, *, folder: str = ".", at_start: str = "") -> None:
        super().__init__(threads)
        self._folder = Path(folder)
        if at_start:
            self._misbehave(at_start)

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        name = model.name
        self._misbehave(name)
        output = np.array([np.nan if name == "nan" else 1.0], dtype=np.float32)
        work = np.ones((160, 160) if name == "slow" else (16, 16), dtype=np.float32)

        def run(inputs: Mapping[str, Any]) -> list[Any]:
            if name == "garbage":
                print('{"event": "done"}', flush=True)
                os.write(1, b'\xff\xfe{"event": "result"\n\n')
            work @ work
            return [output]

        return run

    def _misbehave(self, name: str) -> None:
        if name == "abort":
            os.abort()
        elif name == "segfault":
            ctypes.string_at(0)
        elif name == "exit":
            print("last words", file=sys.stderr, flush=True)
            os._exit(7)
        elif name == "hang":
            time.sleep(1000)
        elif name == "hang_with_children":
            child = subprocess.Popen(["sleep", "1000"])
            (self._folder / "grandchild").write_text(str(child.pid))
            time.sleep(1000)
        elif name == "memory":
            bytearray(1 << 60)
        elif name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif name == "raises":
            raise ValueError("two\nlines")
        elif name == "cut":
            time.sleep(0.3)  # that it began is told meanwhile
            _kill_the_ssh_server_above()
            time.sleep(1000)
        elif name == "flaky":
            seen = self._folder / "seen"
            if not seen.exists():
                seen.touch()
                os.abort()


class MisbehavingLocalDevice(LocalDevice):
    """Importable wherever the runner is, a remote host for one."""

    name = "misbehaving"
    accepts = "onnx"
    runner = f"{__name__}.MisbehavingRunner"

    def __init__(self, threads: int = 1, folder: str = ".", at_start: str = "") -> None:
        super().__init__(threads)
        self.folder, self.at_start = folder, at_start

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    def options(self) -> Mapping[str, Any]:
        return {"folder": self.folder, "at_start": self.at_start}


def _kill_the_ssh_server_above() -> None:
    """Ends the connection that this process was started over."""
    pid = os.getpid()
    while pid > 1:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if fields["Name"].strip().startswith("sshd"):
            os.kill(pid, signal.SIGKILL)
            return
        pid = int(fields["PPid"])
