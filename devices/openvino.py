"""OpenVINO on the CPU, in fp32, bf16 or int8 (post-training quantisation by NNCF)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from ..errors import ConfigError, DeviceError
from ..records import Statistic
from ..search_spaces import Graph
from .answers import TOLERANCES, Array
from .conversion import run_converter
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .runner import GraphFunction, Runner

EXECUTION_MODES = ("performance", "accuracy")
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What OpenVINO computes in where a layer is not quantised. Always set: on CPUs with bf16 units the
default is bf16, whatever the model says."""
QUANTISE_LIMIT_S = 600.0


class OpenVINORunner(Runner):
    """Runs ONNX files and OpenVINO IR through OpenVINO's CPU plugin: one stream, one request.

    Raises:
        DeviceError: If OpenVINO does not take a property as asked, above all the number of threads.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, threads: int, *, precision: str = "fp32", execution_mode: str = "performance") -> None:
        super().__init__(threads)
        import openvino

        self._runtime = openvino
        self._core = openvino.Core()
        self.properties = compile_properties(threads, precision, execution_mode)

    def compile(self, graph: GraphJob) -> Any:
        """The compiled model of one graph, at the job's shapes.

        Raises:
            DeviceError: If a property is not as asked.
        """
        model = self._core.read_model(graph.path)
        model.reshape({tensor.name: list(tensor.shape) for tensor in graph.inputs})
        compiled = self._core.compile_model(model, "CPU", self.properties)
        for key, wanted in self.properties.items():
            found = compiled.get_property(key)
            if not _same(found, wanted):
                raise DeviceError("OpenVINO took another value", field=key, value=str(found), allowed=str(wanted))
        return compiled

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        compiled = self.compile(graph)
        request = compiled.create_infer_request()
        ports = {tensor.name: compiled.input(tensor.name) for tensor in graph.inputs}
        results = [request.get_tensor(compiled.output(name)) for name in graph.outputs]
        bound: dict[str, Array] = {}
        tensor_of = self._runtime.Tensor

        def run(inputs: Mapping[str, Any]) -> list[Array]:
            for name, port in ports.items():
                array = inputs[name]
                if bound.get(name) is not array:  # binding costs tens of microseconds in Python
                    bound[name] = array
                    request.set_tensor(port, tensor_of(array, shared_memory=True))
            request.infer()
            # Copies: the next run overwrites the request's own memory, maybe while it reads it as a state.
            return [np.array(tensor.data) for tensor in results]

        return run


def compile_properties(threads: int, precision: str, execution_mode: str) -> dict[str, Any]:
    """Properties of the compiled model: all that decides what computes, in what format and how wide."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
        "EXECUTION_MODE_HINT": execution_mode.upper(),
        # The measuring process is pinned already, to as many logical cores as there are threads.
        "ENABLE_CPU_PINNING": False,
    }


def _same(found: Any, wanted: Any) -> bool:
    """Whether a property read back is what was set; OpenVINO's enums and types print in their own ways."""
    if not isinstance(wanted, str):
        return bool(found == wanted)
    names = {"f32": "float32", "bf16": "bfloat16"}
    return names.get(wanted, wanted).lower() in str(found).lower()


class OpenVINODevice(OnnxDevice):
    """OpenVINO on this machine's CPU. Takes ONNX files; exports torch modules itself.

    Args:
        threads: Threads of one inference, in one stream.
        execution_mode: ``performance`` (OpenVINO's default) or ``accuracy``.
        precision: ``fp32``; ``bf16`` (emulated, and slow, where the CPU has no such units); ``int8``:
            NNCF's post-training quantisation of weights and activations.
        calibration_samples: Inputs from which int8 ranges are set.
        statistic, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.
    """

    name: ClassVar[str] = "openvino"
    runner: ClassVar[str] = f"{__name__}.OpenVINORunner"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "int8")

    def __init__(
        self,
        threads: int = 1,
        execution_mode: str = "performance",
        calibration_samples: int = 32,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)
        if execution_mode not in EXECUTION_MODES:
            raise ConfigError(
                "no such mode", field="device.execution_mode", value=execution_mode, allowed=EXECUTION_MODES
            )
        if calibration_samples < 1:
            raise ConfigError("must be positive", field="device.calibration_samples", value=calibration_samples)
        self.execution_mode = execution_mode
        self.calibration_samples = calibration_samples

    @classmethod
    def unavailable(cls) -> str | None:
        if find_spec("openvino") is None:
            return "openvino not installed: pip install 'gnomon-nas[openvino]'"
        return None

    @classmethod
    def runtime(cls) -> str:
        return package_version("openvino")

    def options(self) -> Mapping[str, Any]:
        return {"precision": self.precision, "execution_mode": self.execution_mode}

    def convert(self, graph: Graph, folder: Path) -> Path:
        """The ONNX file itself, which the child reads at the job's shapes; for int8 a quantised IR."""
        if self.precision != "int8":
            return cast(Path, graph.onnx_path)
        if find_spec("nncf") is None:
            raise DeviceError(
                "nncf not installed: pip install 'gnomon-nas[openvino]'", field="device.precision", value="int8"
            )
        samples = self.calibration_inputs(graph, self.calibration_samples)
        names = [spec.name for spec in graph.inputs]
        inputs = folder / "calibration.npz"
        np.savez(inputs, **{name: np.stack([sample[name] for sample in samples]) for name in names})  # type: ignore[arg-type]
        target = folder / "int8.xml"
        arguments = [str(graph.onnx_path), str(inputs), str(folder / "answers.npz"), str(target)]
        run_converter(
            [sys.executable, "-P", "-m", f"{__package__}.openvino_int8", *arguments, str(TOLERANCES["fp32"])],
            limit_s=QUANTISE_LIMIT_S,
            what="NNCF",
            produces=target,
        )
        return target
