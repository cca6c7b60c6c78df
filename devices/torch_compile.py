"""Torch modules on the CPU, compiled by torch.compile (TorchInductor)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..search_spaces import Deployable
from .answers import TOLERANCES, random_input, write_answers
from .jobs import GraphJob, ModelJob
from .runner import GraphFunction
from .torch_cpu import TorchCPUDevice, TorchCPURunner

if TYPE_CHECKING:
    from torch import nn

COMPILERS = ("c++", "g++", "clang++")


class TorchCompileRunner(TorchCPURunner):
    """Compiles each module for the shapes of its inputs, before anything is timed."""

    name: ClassVar[str] = "torch_compile"

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        function = super().load(graph, model)
        function({spec.name: self.tensor(random_input(spec)) for spec in graph.inputs})  # the first call compiles
        return function

    def ready(self, module: nn.Module) -> Callable[..., Any]:
        compiled: Callable[..., Any] = self._torch.compile(module, dynamic=False)
        return compiled


class TorchCompileDevice(TorchCPUDevice):
    """Torch on this machine's CPU, compiled by torch.compile. About a minute a model: not for a search's loop.

    Takes architectures of a search space, as ``torch_cpu`` does. Torch keeps what it compiled in its cache
    folder, so that only the first process of a model takes long; ``protocol.timeout_s`` must allow for it.

    Args:
        threads, channels_last, statistic, precision, on_progress: See
            :class:`~gnomon.devices.torch_cpu.TorchCPUDevice`.
    """

    name: ClassVar[str] = "torch_compile"
    runner: ClassVar[str] = f"{__name__}.TorchCompileRunner"

    @classmethod
    def unavailable(cls) -> str | None:
        reason = super().unavailable()
        if reason is None and not any(shutil.which(name) for name in COMPILERS):
            return "no C++ compiler for what torch.compile writes: install g++ or clang"
        return reason

    def prepare(self, deployable: Deployable, folder: Path) -> ModelJob:
        from ..export.onnx_export import fresh_module

        job = super().prepare(deployable, folder)
        graphs = {}
        for name, graph in deployable.graphs.items():
            # The child makes the same weights, from the same seed.
            answers = write_answers(folder / f"{name}-answers.npz", graph, fresh_module(graph))
            graphs[name] = replace(
                job.graphs[name], answers=str(answers.resolve()), tolerance=TOLERANCES[self.precision]
            )
        return replace(job, graphs=graphs)
