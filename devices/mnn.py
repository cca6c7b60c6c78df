"""MNN on the CPU; ONNX files are converted by MNN's own converter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import MeasurementError
from ..records import Statistic
from ..search_spaces import Graph
from .answers import Array
from .conversion import run_converter
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .runner import GraphFunction, Runner

CONVERT_LIMIT_S = 120.0

TOLERANCE = 5e-3
"""Accepted relative error of outputs: MNN's Winograd convolutions cost up to 0.25 % of deep networks' answers."""

_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16")
"""What MNN takes as 32-bit integers."""


class MNNRunner(Runner):
    """Runs MNN's model files through its session interface.

    Inputs and outputs are copied in each run, as its interface requires.
    """

    name: ClassVar[str] = "mnn"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import MNN

        self._runtime = MNN

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        mnn = self._runtime
        interpreter = mnn.Interpreter(graph.path)
        session = interpreter.createSession(self.session_config())
        inputs = {}
        for spec in graph.inputs:
            inputs[spec.name] = interpreter.getSessionInput(session, spec.name)
            interpreter.resizeTensor(inputs[spec.name], tuple(spec.shape))
        interpreter.resizeSession(session)
        outputs = [interpreter.getSessionOutput(session, name) for name in graph.outputs]

        def run(arrays: Mapping[str, Array]) -> list[Array]:
            for name, tensor in inputs.items():
                tensor.copyFrom(self._host(arrays[name]))
            code = interpreter.runSession(session)
            if code not in (None, 0):
                raise MeasurementError(f"MNN's runSession returned {code}")
            return [self._read(tensor) for tensor in outputs]

        return run

    def session_config(self) -> dict[str, Any]:
        """Precision ``high`` is fp32 throughout; the default may use fp16 or bf16 where the CPU has them."""
        return {"backend": "CPU", "numThread": self.threads, "precision": "high", "power": "normal", "memory": "normal"}

    def _host(self, array: Array) -> Any:
        mnn = self._runtime
        if array.dtype == np.float32:
            kind, array = mnn.Halide_Type_Float, np.ascontiguousarray(array)
        else:
            kind, array = mnn.Halide_Type_Int, np.ascontiguousarray(array, dtype=np.int32)
        return mnn.Tensor(tuple(array.shape), kind, array, mnn.Tensor_DimensionType_Caffe)

    def _read(self, tensor: Any) -> Array:
        mnn, shape, kind = self._runtime, tensor.getShape(), tensor.getDataType()
        dtype = np.float32 if kind == mnn.Halide_Type_Float else np.int32
        host = mnn.Tensor(shape, kind, np.empty(shape, dtype), mnn.Tensor_DimensionType_Caffe)
        tensor.copyToHostTensor(host)
        return np.array(host.getNumpyData())


class MNNDevice(OnnxDevice):
    """MNN on this machine's CPU. Takes ONNX files, which MNN's converter converts.

    Args:
        threads: Threads of one inference.
        statistic, precision, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.
    """

    name: ClassVar[str] = "mnn"
    runner: ClassVar[str] = f"{__name__}.MNNRunner"

    def __init__(
        self,
        threads: int = 1,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)

    @property
    def tolerance(self) -> float:
        """See ``TOLERANCE``."""
        return TOLERANCE

    @classmethod
    def unavailable(cls) -> str | None:
        return "MNN not installed: pip install 'gnomon-nas[mnn]'" if find_spec("MNN") is None else None

    @classmethod
    def runtime(cls) -> str:
        return package_version("mnn")

    def convert(self, graph: Graph, folder: Path) -> Path:
        for spec in graph.inputs:
            if spec.dtype != "float32" and spec.dtype not in _INTEGERS:
                raise MeasurementError(
                    f"MNN does not take the dtype of input {spec.name!r}",
                    field="dtype",
                    value=spec.dtype,
                    allowed=("float32", *_INTEGERS),
                )
        target = folder / "model.mnn"
        shapes = [f"{spec.name}={','.join(map(str, spec.shape))}" for spec in graph.inputs]
        run_converter(
            [sys.executable, "-P", "-m", f"{__package__}.mnn_convert", str(graph.onnx_path), str(target), *shapes],
            limit_s=CONVERT_LIMIT_S,
            what="MNN's converter",
            produces=target,
        )
        return target
