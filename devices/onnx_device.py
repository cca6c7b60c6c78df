"""Base of the local devices whose runtime starts from ONNX files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from ..errors import MeasurementError
from ..search_spaces import Deployable, Graph
from .answers import TOLERANCES, Array, random_input, write_answers
from .jobs import GraphJob, ModelJob
from .local import LocalDevice
from .reference import reference_deployable

if TYPE_CHECKING:
    from torch import nn


class OnnxDevice(LocalDevice):
    """Takes ONNX files, exports torch modules itself, and has every graph's answers checked.

    A subclass says in :meth:`convert` how a file becomes what its runtime loads.
    """

    accepts: ClassVar[Literal["torch", "onnx", "architecture"]] = "onnx"

    calibration: Sequence[Mapping[str, Array]] | None = None
    """Representative inputs of the graph ``main`` by input name, each with a batch of the workload's size:
    what a quantising device sets its ranges from. A search puts the task's here; None stands for standard
    normal inputs, which are right for latency and say nothing about quality."""

    def calibration_inputs(self, graph: Graph, n: int = 32) -> list[Mapping[str, Array]]:
        """Up to ``n`` representative inputs of ``graph``: the task's where they fit, else random ones."""
        shapes = {spec.name: tuple(spec.shape) for spec in graph.inputs}
        fits = [{name: array.shape for name, array in sample.items()} == shapes for sample in self.calibration or ()]
        if self.calibration and all(fits):
            return list(self.calibration[:n])
        return [{spec.name: random_input(spec, seed) for spec in graph.inputs} for seed in range(1, n + 1)]

    @abstractmethod
    def convert(self, graph: Graph, folder: Path) -> Path:
        """The file that the runner loads, made from ``graph.onnx_path``, new files within ``folder``.

        Runs in the search's process: what may crash or hang belongs in a subprocess with a time limit.

        Raises:
            GnomonError: If this model cannot be converted; it costs a failed measurement.
        """

    def ship(self, graph: Graph, folder: Path) -> Path:
        """The ONNX file, new ones within ``folder``, whose answers are those of the runtime: ``graph.onnx_path``,
        or that file quantised as :meth:`convert` would, but with all of :attr:`calibration`.
        """
        return cast(Path, graph.onnx_path)

    def deployed(self, deployable: Deployable, folder: Path) -> Deployable:
        graphs = {
            name: graph if graph.onnx_path is None else replace(graph, onnx_path=self.ship(graph, folder))
            for name, graph in deployable.graphs.items()
        }
        return replace(deployable, graphs=graphs)

    @property
    def tolerance(self) -> float:
        """Accepted relative error of outputs, see :data:`~gnomon.devices.answers.TOLERANCES`."""
        return TOLERANCES[self.precision]

    def reference(self, folder: Path) -> ModelJob:
        part = folder / "reference"
        part.mkdir(exist_ok=True)
        return self.prepare(reference_deployable(part / "reference.onnx"), part)

    def prepare(self, deployable: Deployable, folder: Path) -> ModelJob:
        deployable = deployable.called
        modules = {name: _fresh(graph) for name, graph in deployable.graphs.items() if graph.module is not None}
        exported = _exported(deployable, folder, modules)
        job = ModelJob.of(exported)
        graphs = {
            name: self._prepare_graph(graph, job.graphs[name], folder / name, modules.get(name))
            for name, graph in exported.graphs.items()
        }
        return replace(job, graphs=graphs)

    def _prepare_graph(self, graph: Graph, job: GraphJob, folder: Path, module: nn.Module | None) -> GraphJob:
        if graph.onnx_path is None or not graph.onnx_path.is_file():
            raise MeasurementError("no such file", field="onnx_path", value=str(graph.onnx_path))
        folder.mkdir(exist_ok=True)
        answers = write_answers(folder / "answers.npz", graph, module)
        path = self.convert(graph, folder)
        return replace(job, path=str(path.resolve()), answers=str(answers.resolve()), tolerance=self.tolerance)


def _exported(deployable: Deployable, folder: Path, modules: Mapping[str, nn.Module]) -> Deployable:
    if not modules:
        return deployable
    from ..export import export_deployable

    # What is measured has fresh weights and is thrown away: only its graph must be the exporter's.
    return export_deployable(deployable, folder, modules=modules, direct=True)


def _fresh(graph: Graph) -> nn.Module:
    from ..export.onnx_export import fresh_module

    return fresh_module(graph)
