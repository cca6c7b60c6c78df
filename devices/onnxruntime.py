"""ONNX Runtime, on the CPU or through one of its execution providers, in floats or quantised."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

from ..errors import ConfigError
from ..records import Statistic
from ..search_spaces import Graph
from .answers import random_input
from .energy import Meter, cpu_meter, gpu_meter
from .fingerprint import cpu_model, package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .onnxruntime_providers import (
    NVIDIA,
    PROVIDERS,
    ProviderOptions,
    gpu_name,
    nodes_by_provider,
    provider_list,
    provider_share,
)
from .runner import GraphFunction, Runner

GRAPH_OPTIMIZATION = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
FRESH_SAMPLES = 4
"""Inputs that set the ranges of a network whose quality nobody asks for."""


class OnnxRuntimeRunner(Runner):
    """Runs ONNX files through ONNX Runtime.

    With a provider other than the CPU's, one profiled run before any timing says on which provider each node
    ran; profiling is off from then on.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(
        self,
        threads: int,
        *,
        graph_optimization: str = "all",
        provider: str = "cpu",
        provider_options: ProviderOptions | None = None,
        quantisation: object = None,  # part of the setting; the file that comes here has it in it
    ) -> None:
        super().__init__(threads)
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        self._runtime = onnxruntime
        self._level = getattr(onnxruntime.GraphOptimizationLevel, GRAPH_OPTIMIZATION[graph_optimization])
        self._provider = provider
        available = onnxruntime.get_available_providers()
        self._providers = provider_list(provider, provider_options or {}, threads, available)
        self._shares: list[float] = []

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        session = self._session(graph) if self._provider == "cpu" else self._checked_session(graph)
        outputs = list(graph.outputs)

        def run(inputs: Mapping[str, Any]) -> list[Any]:
            return list(session.run(outputs, inputs))

        return run

    def meter(self) -> Meter | None:
        if self._provider in ("cpu", "xnnpack"):
            return cpu_meter()
        return gpu_meter() if self._provider in NVIDIA else None

    def facts(self) -> Mapping[str, float]:
        """``provider_share``: of the nodes, how many ran on the provider asked for (the graph with the least)."""
        return {"provider_share": min(self._shares)} if self._shares else {}

    def reset_peak_memory(self) -> None:
        super().reset_peak_memory()
        self._shares.clear()  # called before each model

    def _session(self, graph: GraphJob, profile: str | None = None) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = 1 if self._provider == "xnnpack" else self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = self._level
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        return self._runtime.InferenceSession(graph.path, options, providers=self._providers)

    def _checked_session(self, graph: GraphJob) -> Any:
        with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
            session = self._session(graph, os.path.join(folder, "profile"))
            session.run(None, {spec.name: random_input(spec) for spec in graph.inputs})
            nodes = nodes_by_provider(session.end_profiling())
        self._shares.append(provider_share(self._provider, nodes))
        return session


class OnnxRuntimeDevice(OnnxDevice):
    """ONNX Runtime on this machine. Takes ONNX files; exports torch modules itself.

    ``precision="int8"`` quantises every network statically before it is measured (:mod:`gnomon.export.quantisation`);
    a file that is quantised already runs as it is. ``precision="per_layer"`` changes nothing either: each layer
    has the bits that its file says.

    Providers other than ``cpu`` were written from ONNX Runtime's documentation and **never run by their
    authors**, who had no such accelerator: what was tested is that a provider which is absent, or which leaves
    all nodes to the CPU, is an error. Copies to and from the accelerator are part of the latency.

    Args:
        threads: Intra-op threads; one by default, as more are slower for small models.
        graph_optimization: ``none``, ``basic``, ``extended`` or ``all`` (ONNX Runtime's levels).
        provider: ``cpu``, ``cuda``, ``tensorrt``, ``coreml``, ``qnn`` or ``xnnpack``.
        provider_options: Of that provider, as ONNX Runtime documents them.
        per_channel, weight_bits: Of ``int8``, see :class:`gnomon.export.Quantisation`.
        statistic, precision, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.

    Raises:
        ConfigError: If an argument is none of these.
    """

    name: ClassVar[str] = "onnxruntime"
    runner: ClassVar[str] = f"{__name__}.OnnxRuntimeRunner"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8", "per_layer")

    def __init__(
        self,
        threads: int = 1,
        graph_optimization: str = "all",
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
        provider: str = "cpu",
        provider_options: ProviderOptions | None = None,
        per_channel: bool = True,
        weight_bits: int = 8,
    ) -> None:
        from ..export.quantisation import Quantisation

        super().__init__(threads, statistic, precision, on_progress)
        if graph_optimization not in GRAPH_OPTIMIZATION:
            raise ConfigError(
                "no such level",
                field="device.graph_optimization",
                value=graph_optimization,
                allowed=GRAPH_OPTIMIZATION,
            )
        if provider not in PROVIDERS:
            raise ConfigError("no such provider", field="device.provider", value=provider, allowed=PROVIDERS)
        if provider_options and provider == "cpu":
            raise ConfigError(
                "the CPU has no options", field="device.provider_options", value=dict(provider_options), allowed="none"
            )
        self.graph_optimization = graph_optimization
        self.provider = provider
        self.provider_options = dict(provider_options or {})
        self.per_channel, self.weight_bits = per_channel, weight_bits
        self.quantisation = Quantisation(per_channel, weight_bits)

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        return f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}" if missing else None

    @classmethod
    def runtime(cls) -> str:
        return package_version("onnxruntime")

    def hardware(self) -> str:
        return gpu_name(self.provider_options) if self.provider in NVIDIA else cpu_model()

    def options(self) -> Mapping[str, Any]:
        options: dict[str, Any] = {"graph_optimization": self.graph_optimization}
        if self.provider != "cpu":
            options |= {"provider": self.provider, "provider_options": self.provider_options}
        if self.precision == "int8":
            options["quantisation"] = self.quantisation.to_dict()
        return options

    def convert(self, graph: Graph, folder: Path) -> Path:
        path = cast(Path, graph.onnx_path)
        return self._quantised(graph, folder, FRESH_SAMPLES) if self.precision == "int8" else path

    def ship(self, graph: Graph, folder: Path) -> Path:
        path = cast(Path, graph.onnx_path)
        return self._quantised(graph, folder, n=None) if self.precision == "int8" else path

    def _quantised(self, graph: Graph, folder: Path, n: int | None) -> Path:
        from ..export.quantisation import QUANTISED, is_quantised, quantise

        path = cast(Path, graph.onnx_path)
        if is_quantised(path):
            return path
        inputs = self.calibration_inputs(graph) if n is None else self.calibration_inputs(graph, n)
        return quantise(path, folder / f"{path.stem}{QUANTISED}", inputs, self.quantisation)
