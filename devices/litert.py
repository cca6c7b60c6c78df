"""LiteRT (TensorFlow Lite) on the CPU; models are converted by litert-torch in an environment of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConfigError, DeviceError, MeasurementError
from ..records import Statistic
from ..search_spaces import Graph
from .converter_process import ConverterProcess
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .runner import Array, GraphFunction, Runner
from .torch_program import conversion_request

CONVERT_LIMIT_S = 180.0
PYTHON_VARIABLE = "GNOMON_LITERT_PYTHON"
DELEGATES = ("xnnpack", "none")
CONVERTER_PACKAGES = ("litert-torch==0.10.0", "torch==2.13.0", "typing-extensions<4.13")
"""What the converter's environment holds. Without the last, pip tries versions for ten minutes and more."""


class LiteRTRunner(Runner):
    """Runs ``.tflite`` files through LiteRT's interpreter."""

    name: ClassVar[str] = "litert"

    def __init__(self, threads: int, *, delegate: str = "xnnpack") -> None:
        super().__init__(threads)
        from ai_edge_litert import interpreter

        self._interpreter = interpreter.Interpreter
        resolvers = interpreter.OpResolverType
        self._resolver = resolvers.AUTO if delegate == "xnnpack" else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        interpreter = self._interpreter(
            graph.path, num_threads=self.threads, experimental_op_resolver_type=self._resolver
        )
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner()
        inputs = _in_order(signature.get_input_details())
        outputs = [each["index"] for each in _in_order(signature.get_output_details())]
        places = []
        for spec, details in zip(graph.inputs, inputs, strict=True):
            if details["dtype"].__name__ != spec.dtype:
                raise MeasurementError(
                    "the LiteRT model takes another dtype",
                    field=spec.name,
                    value=details["dtype"].__name__,
                    allowed=spec.dtype,
                )
            places.append((details["index"], spec.name))
        put, invoke, get = interpreter.set_tensor, interpreter.invoke, interpreter.get_tensor

        def run(arrays: Mapping[str, Array]) -> list[Array]:
            for index, name in places:
                put(index, arrays[name])
            invoke()
            return [get(index) for index in outputs]

        return run


def _in_order(details: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By the number at the end of the signature's names (``args_0``, ``output_0``)."""
    return [details[name] for name in sorted(details, key=lambda name: int(name.rpartition("_")[2]))]


class LiteRTDevice(OnnxDevice):
    """LiteRT on this machine's CPU. Takes ONNX files, which are converted by way of torch.

    litert-torch does not fit beside the other packages, so that it has a Python environment of its own,
    and a process of that environment converts one model after the other. Inputs and outputs stay float
    in ``int8`` too, as on the other runtimes: the conversion is a part of the latency.

    Args:
        threads: Threads of one inference.
        delegate: ``xnnpack`` (LiteRT's default) or ``none``: LiteRT's own kernels.
        converter_python: Interpreter of the converter's environment. Default: the environment variable
            ``GNOMON_LITERT_PYTHON``, else ``gnomon/litert`` in the user's cache folder.
        calibration_samples: Inputs that set the ranges of ``int8``.
        precision: ``fp32``, or ``int8`` for static post-training quantisation.
        statistic, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.
    """

    name: ClassVar[str] = "litert"
    runner: ClassVar[str] = f"{__name__}.LiteRTRunner"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")

    def __init__(
        self,
        threads: int = 1,
        delegate: str = "xnnpack",
        converter_python: str | None = None,
        calibration_samples: int = 32,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)
        if delegate not in DELEGATES:
            raise ConfigError("no such delegate", field="device.delegate", value=delegate, allowed=DELEGATES)
        if calibration_samples < 1:
            raise ConfigError("must be positive", field="device.calibration_samples", value=calibration_samples)
        self.delegate = delegate
        self.converter_python = converter_python
        self.calibration_samples = calibration_samples
        self._converter: ConverterProcess | None = None
        if converter_python is not None:  # the class can tell of the default only
            self.unavailable = lambda: _missing(Path(converter_python))  # type: ignore[method-assign]

    @classmethod
    def unavailable(cls) -> str | None:
        return _missing(default_python())

    @classmethod
    def runtime(cls) -> str:
        return package_version("ai-edge-litert")

    def options(self) -> Mapping[str, Any]:
        return {"delegate": self.delegate}

    def convert(self, graph: Graph, folder: Path) -> Path:
        """``model.tflite``, by way of a torch program; int8 replaces the expected answers besides."""
        target = folder / "model.tflite"
        samples = self.calibration_inputs(graph, self.calibration_samples) if self.precision == "int8" else None
        from .onnx_module import OPERATORS, average_pool_without_padding

        operators = {**OPERATORS, "AveragePool": average_pool_without_padding}
        self._converting()(**conversion_request(graph, folder, target, samples, operators))
        return target

    def _converting(self) -> ConverterProcess:
        if self._converter is None:
            python = Path(self.converter_python) if self.converter_python else default_python()
            reason = _no_converter(python)
            if reason is not None:
                raise DeviceError(reason, field="device.converter_python", value=str(python))
            script = Path(__file__).with_name("litert_convert.py")
            command = [str(python), "-I", str(script)]  # isolated: this folder has modules named as runtimes are
            self._converter = ConverterProcess(command, what="litert-torch", limit_s=CONVERT_LIMIT_S)
        return self._converter


def default_python() -> Path:
    """The converter's interpreter where none is given."""
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    scripts = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return cache / "gnomon" / "litert" / scripts


def _missing(python: Path) -> str | None:
    if find_spec("ai_edge_litert") is None:
        return "ai-edge-litert is not installed: pip install 'gnomon-nas[litert]'"
    return _no_converter(python)


def _no_converter(python: Path) -> str | None:
    """Why there is no converter at ``python``, with the commands that make one; None if there is."""
    if not python.is_file():
        reason = f"no Python for the converter at {python}"
    elif not any(python.parent.parent.glob("[Ll]ib*/**/site-packages/litert_torch")):
        reason = f"litert-torch is not in the environment of {python}"
    else:
        return None
    packages = " ".join(f"'{each}'" for each in CONVERTER_PACKAGES)
    folder = python.parent.parent
    return (
        f"{reason}: python -m venv {folder} && {python} -m pip install {packages} "
        f"(or name another environment's Python in {PYTHON_VARIABLE})"
    )
