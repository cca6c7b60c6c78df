"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

from ..errors import ConfigError
from ..records import Statistic
from ..search_spaces import Graph
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .runner import GraphFunction, Runner

GRAPH_OPTIMIZATION = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class OnnxRuntimeRunner(Runner):
    """Runs ONNX files through ONNX Runtime's CPU provider."""

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, threads: int, *, graph_optimization: str = "all") -> None:
        super().__init__(threads)
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        self._runtime = onnxruntime
        self._level = getattr(onnxruntime.GraphOptimizationLevel, GRAPH_OPTIMIZATION[graph_optimization])

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = self._level
        session = self._runtime.InferenceSession(graph.path, options, providers=["CPUExecutionProvider"])
        outputs = list(graph.outputs)

        def run(inputs: Mapping[str, Any]) -> list[Any]:
            return list(session.run(outputs, inputs))

        return run


class OnnxRuntimeDevice(OnnxDevice):
    """ONNX Runtime on this machine's CPU. Takes ONNX files; exports torch modules itself.

    Args:
        threads: Intra-op threads; one by default, as more are slower for small models.
        graph_optimization: ``none``, ``basic``, ``extended`` or ``all`` (ONNX Runtime's levels).
        statistic, precision, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.
    """

    name: ClassVar[str] = "onnxruntime"
    runner: ClassVar[str] = f"{__name__}.OnnxRuntimeRunner"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")

    def __init__(
        self,
        threads: int = 1,
        graph_optimization: str = "all",
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)
        if graph_optimization not in GRAPH_OPTIMIZATION:
            raise ConfigError(
                "no such level",
                field="device.graph_optimization",
                value=graph_optimization,
                allowed=GRAPH_OPTIMIZATION,
            )
        self.graph_optimization = graph_optimization

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        return f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}" if missing else None

    @classmethod
    def runtime(cls) -> str:
        return package_version("onnxruntime")

    def options(self) -> Mapping[str, Any]:
        return {"graph_optimization": self.graph_optimization}

    def convert(self, graph: Graph, folder: Path) -> Path:
        return cast(Path, graph.onnx_path)
