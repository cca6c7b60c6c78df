"""Apache TVM, not tuned: on this machine's CPU, or through TVM's RPC on another device."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

from ..errors import ConfigError, DeviceError, MeasurementError
from ..records import Statistic
from ..search_spaces import Graph
from .conversion import run_converter
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .runner import Array, GraphFunction, Runner

COMPILE_LIMIT_S = 600.0
RPC_TIMEOUT_S = 60
DEFAULT_COMPILER = "c++"


class TVMRunner(Runner):
    """Runs compiled libraries in TVM's virtual machine, here or on an RPC server.

    Over RPC the clock is the server's: it stands still while inputs and requests travel.
    """

    name: ClassVar[str] = "tvm"

    def __init__(
        self,
        threads: int,
        *,
        host: str | None = None,
        port: int = 9090,
        key: str = "",
        tracker: bool = False,
        **_compiled_for: str,
    ) -> None:
        super().__init__(threads)
        os.environ["TVM_NUM_THREADS"] = str(threads)  # read when TVM's thread pool starts
        import tvm
        from tvm import relax

        self._tvm, self._machine = tvm, relax.VirtualMachine
        self._session = None if host is None else _connect(host, port, key, tracker)
        self._device = tvm.cpu(0) if self._session is None else self._session.cpu(0)
        self._clock_ms = 0.0

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        path, names = cast(str, graph.path), [spec.name for spec in graph.inputs]
        if self._session is None:
            main = self._machine(self._tvm.runtime.load_module(path), self._device)["main"]
            return lambda inputs: _listed(main(*[inputs[name] for name in names]))
        remote_name = f"{os.getpid()}-{Path(path).parent.parent.name}-{Path(path).parent.name}.so"
        self._session.upload(path, remote_name)
        machine = self._machine(self._session.load_module(remote_name), self._device)
        return self._timed_there(machine, names)

    def _timed_there(self, machine: Any, names: list[str]) -> GraphFunction:
        evaluate = machine.time_evaluator("invoke_stateful", self._device, number=1, repeat=1)

        def run(inputs: Mapping[str, Any]) -> list[Any]:
            machine.set_input("main", *[inputs[name] for name in names])
            self._clock_ms += evaluate("main").mean * 1e3
            return _listed(machine.get_outputs("main"))

        return run

    def tensor(self, array: Array) -> Any:
        return self._tvm.runtime.tensor(array, self._device)

    def array(self, tensor: Any) -> Array:
        array: Array = tensor.numpy()
        return array

    def mark(self) -> Any:
        return super().mark() if self._session is None else self._clock_ms

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return super().elapsed_ms(start, end) if self._session is None else float(end - start)

    def peak_memory_bytes(self) -> int | None:
        return super().peak_memory_bytes() if self._session is None else None


def _listed(outputs: Any) -> list[Any]:
    return [outputs] if hasattr(outputs, "numpy") else list(outputs)


def _connect(host: str, port: int, key: str, tracker: bool) -> Any:
    """A session with an RPC server, or with the next free one that a tracker knows under ``key``.

    Raises:
        DeviceError: If there is none.
    """
    from tvm import rpc

    try:
        if tracker:
            return rpc.connect_tracker(host, port).request(key, session_timeout=RPC_TIMEOUT_S)
        return rpc.connect(host, port, key, session_timeout=RPC_TIMEOUT_S)
    except Exception as error:  # TVM's errors share no base but Exception
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")[:200]
        raise DeviceError(f"no RPC session: {reason}", field="device.host", value=f"{host}:{port}") from error


class TVMDevice(OnnxDevice):
    """Apache TVM without tuning, on this machine's CPU or over RPC. Takes ONNX files.

    Args:
        threads: Threads of one inference (over RPC: what ``TVM_NUM_THREADS`` is there).
        target: What to compile for, as TVM writes it: ``llvm``, or a JSON object with ``kind``, ``mtriple``
            and ``mcpu``.
        compiler: C++ compiler that links for the target.
        host, port: RPC server, or the tracker's address; None: here.
        key: Of the RPC server.
        tracker: ``host`` is an RPC tracker, which hands out a server of that ``key``.
        device_name: What computes, where ``host`` is given; part of the setting's identity.
        precision, statistic, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.
    """

    name: ClassVar[str] = "tvm"
    runner: ClassVar[str] = f"{__name__}.TVMRunner"

    def __init__(
        self,
        threads: int = 1,
        target: str = "llvm",
        compiler: str = DEFAULT_COMPILER,
        host: str | None = None,
        port: int = 9090,
        key: str = "",
        tracker: bool = False,
        device_name: str | None = None,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)
        if host is not None and not device_name:
            raise ConfigError("must name what computes at the other end", field="device.device_name", value=device_name)
        if tracker and (host is None or not key):
            raise ConfigError("needs device.host and device.key", field="device.tracker", value=tracker)
        if not 0 < port < 65536:
            raise ConfigError("not a port", field="device.port", value=port, allowed="1 to 65535")
        self.target, self.compiler = target, compiler
        self.host, self.port, self.key, self.tracker = host, port, key, tracker
        self.device_name = device_name

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [name for name in ("tvm", "onnx") if find_spec(name) is None]
        if missing:
            return f"{' and '.join(missing)} not installed: pip install 'gnomon-nas[tvm]'"
        if shutil.which(DEFAULT_COMPILER) is None:
            return f"no C++ compiler ({DEFAULT_COMPILER}) to link what TVM compiles: install g++ or clang"
        return None

    @classmethod
    def runtime(cls) -> str:
        return package_version("apache-tvm")

    def hardware(self) -> str:
        return super().hardware() if self.device_name is None else self.device_name

    def cores(self) -> int:
        return super().cores() if self.host is None else sys.maxsize

    def options(self) -> Mapping[str, Any]:
        """With the address of the server: two boards of one name are told apart."""
        options: dict[str, Any] = {"target": self.target}
        if self.host is not None:
            options.update(host=self.host, port=self.port, key=self.key, tracker=self.tracker)
        return options

    def convert(self, graph: Graph, folder: Path) -> Path:
        """``model.so``, linked for the target."""
        target = folder / "model.so"
        if shutil.which(self.compiler) is None:
            raise MeasurementError("no such compiler here", field="device.compiler", value=self.compiler)
        shapes = json.dumps({spec.name: list(spec.shape) for spec in graph.inputs})
        # Isolated: the script's folder has modules named as runtimes are.
        script = [sys.executable, "-I", str(Path(__file__).with_name("tvm_compile.py"))]
        arguments = [str(graph.onnx_path), shapes, self.target, self.compiler, str(target)]
        run_converter([*script, *arguments], limit_s=COMPILE_LIMIT_S, what="TVM", produces=target)
        return target
