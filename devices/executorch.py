"""ExecuTorch on the CPU, through its XNNPACK delegate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConfigError, DeviceError
from ..records import Statistic
from ..search_spaces import Graph
from .converter_process import ConverterProcess
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .runner import Array, GraphFunction, Runner
from .torch_program import conversion_request

CONVERT_LIMIT_S = 240.0


class ExecuTorchRunner(Runner):
    """Runs ``.pte`` files through ExecuTorch's Python bindings."""

    name: ClassVar[str] = "executorch"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import torch
        from executorch.extension.pybindings import portable_lib

        torch.set_num_threads(threads)
        self._torch, self._library = torch, portable_lib
        # Its one setter of the thread pool; unsafe only while a model runs, and none is loaded yet.
        portable_lib._unsafe_reset_threadpool(threads)
        found = portable_lib._threadpool_get_thread_count()
        if found != threads:
            raise DeviceError(
                "ExecuTorch's thread pool has another size", field="threads", value=threads, allowed=found
            )

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        module = self._library._load_for_executorch(graph.path)
        names, forward = [spec.name for spec in graph.inputs], module.forward

        def run(inputs: Mapping[str, Any]) -> list[Any]:
            return list(forward([inputs[name] for name in names]))

        return run

    def tensor(self, array: Array) -> Any:
        return self._torch.from_numpy(array)

    def array(self, tensor: Any) -> Array:
        array: Array = tensor.numpy()
        return array


class ExecuTorchDevice(OnnxDevice):
    """ExecuTorch on this machine's CPU, with XNNPACK. Takes ONNX files, which are converted by way of torch.

    Args:
        threads: Threads of one inference.
        calibration_samples: Inputs that set the ranges of ``int8``.
        precision: ``fp32``, or ``int8`` for static post-training quantisation by XNNPACK's quantizer.
        statistic, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.
    """

    name: ClassVar[str] = "executorch"
    runner: ClassVar[str] = f"{__name__}.ExecuTorchRunner"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")

    def __init__(
        self,
        threads: int = 1,
        calibration_samples: int = 32,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)
        if calibration_samples < 1:
            raise ConfigError("must be positive", field="device.calibration_samples", value=calibration_samples)
        self.calibration_samples = calibration_samples
        # Isolated: the script's folder has modules named as runtimes are.
        command = [sys.executable, "-I", str(Path(__file__).with_name("executorch_convert.py"))]
        self._converter = ConverterProcess(command, what="ExecuTorch's export", limit_s=CONVERT_LIMIT_S)

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [name for name in ("executorch", "torchao") if find_spec(name) is None]
        return f"{' and '.join(missing)} not installed: pip install 'gnomon-nas[executorch]'" if missing else None

    @classmethod
    def runtime(cls) -> str:
        return package_version("executorch")

    def convert(self, graph: Graph, folder: Path) -> Path:
        """``model.pte``, by way of a torch program; int8 replaces the expected answers besides."""
        target = folder / "model.pte"
        samples = self.calibration_inputs(graph, self.calibration_samples) if self.precision == "int8" else None
        self._converter(**conversion_request(graph, folder, target, samples))
        return target
