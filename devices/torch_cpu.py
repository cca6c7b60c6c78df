"""Torch modules on the CPU, run eagerly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import DeviceError, MeasurementError
from ..records import Statistic
from ..search_spaces import Deployable, space_from_spec
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import LocalDevice, Progress
from .reference import CHANNELS, LAYERS
from .runner import Array, GraphFunction, Runner

if TYPE_CHECKING:
    import torch
    from torch import nn


class TorchCPURunner(Runner):
    """Rebuilds modules from their space and config, and runs them under ``torch.inference_mode``.

    Args:
        threads: Threads of one operator.
        channels_last: Memory format NHWC for weights and four-dimensional inputs.
    """

    name: ClassVar[str] = "torch_cpu"

    def __init__(self, threads: int, *, channels_last: bool = False) -> None:
        super().__init__(threads)
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self._torch = torch
        self._channels_last = channels_last
        self._device = torch.device("cpu")

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        self._torch.manual_seed(0)
        name = next(name for name, job in model.graphs.items() if job is graph)
        module = self._reference() if model.architecture is None else _module(model, name)
        module = module.eval().to(self._device)
        if self._channels_last:
            # torch's annotations lack this overload of Module.to
            module = module.to(memory_format=self._torch.channels_last)  # type: ignore[call-overload]
        names, inference_mode = [t.name for t in graph.inputs], self._torch.inference_mode
        forward = self.ready(module)

        def run(inputs: Mapping[str, Any]) -> Sequence[Any]:
            with inference_mode():
                outputs = forward(*[inputs[name] for name in names])
            return [outputs] if hasattr(outputs, "shape") else list(outputs)

        return run

    def ready(self, module: nn.Module) -> Callable[..., Any]:
        """What is called in the place of ``module``."""
        return module

    def tensor(self, array: Array) -> torch.Tensor:
        tensor = self._torch.from_numpy(array).to(self._device)
        if self._channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=self._torch.channels_last)
        return tensor

    def array(self, tensor: Any) -> Array:
        array: Array = tensor.float().cpu().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()
        return array

    def _reference(self) -> nn.Module:
        from torch import nn

        layers = [
            nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), nn.ReLU()) for _ in range(LAYERS)
        ]
        return nn.Sequential(*layers)


def _module(model: ModelJob, graph: str) -> nn.Module:
    """The module of one graph of the architecture, from its space.

    Raises:
        MeasurementError: If the space gives no module for that graph.
    """
    if model.architecture is None:
        raise MeasurementError("no architecture to build", field="model", value=model.name)
    from ..export.onnx_export import fresh_module

    space = space_from_spec(model.architecture.space)
    graphs = space.deployable(model.architecture.config, model.workload).graphs
    if graph not in graphs or graphs[graph].module is None:
        raise MeasurementError("its space builds no such graph", field="graph", value=graph, allowed=sorted(graphs))
    return fresh_module(graphs[graph])


class TorchCPUDevice(LocalDevice):
    """Torch on this machine's CPU, eager. Takes architectures of a search space, not trained files:
    the child process rebuilds the module, and latency does not depend on weights.

    Args:
        threads: Threads of one operator.
        channels_last: Memory format NHWC.
        statistic, precision, on_progress: See :class:`LocalDevice`.
    """

    name: ClassVar[str] = "torch_cpu"
    accepts: ClassVar[Literal["torch", "onnx", "architecture"]] = "torch"
    runner: ClassVar[str] = f"{__name__}.TorchCPURunner"

    def __init__(
        self,
        threads: int = 1,
        channels_last: bool = False,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)
        self.channels_last = channels_last

    @classmethod
    def unavailable(cls) -> str | None:
        return "torch is not installed: pip install torch" if find_spec("torch") is None else None

    @classmethod
    def runtime(cls) -> str:
        return package_version("torch")

    def options(self) -> Mapping[str, Any]:
        return {"channels_last": self.channels_last}

    def check(self, deployable: Deployable) -> None:
        if deployable.architecture is None:
            raise DeviceError(
                "it needs an architecture of a search space, to rebuild the module in its own process",
                field="device",
                value=self.name,
                hint=f"{deployable.name} has none: measure it with device=onnxruntime.",
            )
