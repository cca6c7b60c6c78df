"""The contract of a search space: what can be built, as an algebra on integer arrays.

Shapes: N architectures, D decisions, F features.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .additive import AdditiveEncoding
from .algebra import GenotypeAlgebra, Genotypes
from .architecture import Architecture
from .costs import Costs
from .counting import count_canonical, enumerate_canonical
from .decision import Choice, Decision
from .deployable import Deployable, Graph, TensorSpec
from .workload import Workload

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .elastic import ElasticModel
    from .relaxed import RelaxedModel
    from .soft import Probabilities


class SearchSpace(ABC):
    """A set of architectures, one per canonical row of choice indices.

    A subclass passes its decisions to ``__init__`` and implements :meth:`arguments`,
    :meth:`build`, :meth:`costs`, and usually :meth:`encode` and :attr:`named`. It runs
    ``gnomon.testing.SearchSpaceSuite``.
    """

    name: ClassVar[str]
    starts_trained: ClassVar[bool] = False
    """Whether :meth:`initial` and :meth:`elastic` give weights that were trained before."""

    def __init__(self, decisions: tuple[Decision, ...], workload: Workload) -> None:
        self.algebra = GenotypeAlgebra(decisions)
        self.workload = workload

    # ---- What a space must say -------------------------------------------------------------

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Constructor arguments as JSON, from which an equal space is made elsewhere."""

    @abstractmethod
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The torch module of a config, freshly initialised under torch's current seed."""

    @abstractmethod
    def costs(self, genotypes: Genotypes) -> Costs:
        """Analytic costs of a population, vectorised."""

    # ---- What a space may refine -----------------------------------------------------------

    @property
    def named(self) -> Mapping[str, Mapping[str, Any]]:
        """Known networks by name, as configs of this space. The first is the reference network."""
        return {}

    def given_assets(self) -> Mapping[str, str]:
        """Texts by file name, such as a tokenizer, that came with weights that were trained before. A task that has a
        file of this name must have the same. By default none."""
        return {}

    def given_limits(self) -> Mapping[str, int]:
        """The most that weights which were trained before can take of what :meth:`Task.space_arguments` names, such as
        ``max_length``. By default nothing is limited."""
        return {}

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Features ``(N, F)`` for predictors. By default one-hot of the active genes."""
        active = self.algebra.active(genotypes)
        columns = [
            (genotypes[:, gene] == choice) & active[:, gene]
            for gene, cardinality in enumerate(self.algebra.cardinalities)
            for choice in range(cardinality)
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F columns of :meth:`encode`."""
        return tuple(f"{d.name}={choice}" for d in self.decisions for choice in d.choices)

    @property
    def feature_units(self) -> npt.NDArray[np.float64]:
        """What 1 stands for in each column of :meth:`encode` ``(F,)``, in units that do not depend on
        the space's arguments (operations, elements): with them, what was learnt at one image size or
        width serves another. All ones by default."""
        return np.ones(len(self.feature_names))

    @property
    def executions(self) -> Mapping[str, tuple[str, ...]]:
        """Ways in which runtimes execute networks of this space, where they differ: by name, the
        names of the K columns of :meth:`execution_counts`, the same for each. The first is the
        network as it was built. Empty where every runtime executes what was built.

        Which of them a device shows, a predictor learns from its measurements.
        """
        return {}

    def execution_counts(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Operations that run, by execution and kind ``(N, V, K)``; see :attr:`executions`."""
        return np.zeros((len(genotypes), 0, 0), dtype=np.float32)

    def additive_encoding(self) -> AdditiveEncoding | None:
        """:meth:`encode` as sums of table look-ups, where the space has that structure, else None.

        With it a linear predictor folds its weights into the tables and serves a million
        candidates a second; its ``encode`` equals the space's.
        """
        return None

    def repair(self, genotypes: Genotypes) -> Genotypes:
        """Moves rows that break the space's own constraints to valid ones. Identity by default."""
        return genotypes

    def function_keys(self, genotypes: Genotypes) -> list[str]:
        """Keys under which architectures compute the same function; shared for quality only,
        never for latency. By default the architecture's own key."""
        return self.keys(genotypes)

    def initial(self, config: Mapping[str, Any]) -> nn.Module:
        """The torch module with which a training starts: :meth:`build`, unless the space has trained weights."""
        return self.build(config)

    def elastic(self) -> ElasticModel:
        """All networks of this space in one set of shared weights, freshly initialised under torch's current seed.

        Raises:
            SpaceError: If this space shares no weights.
        """
        raise SpaceError("shares no weights between its networks", field="space", value=self.name)

    def encode_soft(self, probabilities: Probabilities) -> torch.Tensor:
        """:meth:`encode` relaxed: its average ``(F,)`` where each decision is drawn by itself, with gradients.

        Equal to ``encode`` at the corners. Given by the space's structure (sums of tables, one-hot choices, or few
        architectures); see :mod:`.soft`.

        Args:
            probabilities: A tensor ``(K_d,)`` for each decision, of its choices.

        Raises:
            SpaceError: If the space has none of these structures, or the shapes are wrong.
        """
        from .soft import expected_features

        return expected_features(self, probabilities)

    def relaxed(self) -> RelaxedModel:
        """All networks of this space as one mixture, freshly initialised under torch's current seed.

        Raises:
            SpaceError: If this space has no mixed operations.
        """
        raise SpaceError("has no mixed operations", field="space", value=self.name)

    def graph_modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The modules of a trained model's graphs, by the graph names of :meth:`deployable`; they share its weights."""
        return {"main": model}

    def interface(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """How graphs of an exported model fit together, as JSON for its metadata; empty where one is all there is."""
        return {}

    def model_files(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Texts by file name that go into a model's folder beside its weights; by default none."""
        return {}

    def module_graph(self, config: Mapping[str, Any]) -> Graph:
        """The single graph of an image model: ``input`` to ``output``, free batch size."""
        return Graph(
            inputs=(TensorSpec("input", (self.workload.batch, *self.workload.input_shape), dynamic_axes={0: "batch"}),),
            outputs=("output",),
            module=lambda: self.build(config),
        )

    def deployable(self, config: Mapping[str, Any], workload: Workload | None = None) -> Deployable:
        """What a device runs for ``config``; by default one graph, called once."""
        architecture = self.architecture(self.genotype(config))
        workload = workload or self.workload
        graph = self.module_graph(architecture.config)
        if workload.batch != self.workload.batch:
            inputs = tuple(replace(tensor, shape=(workload.batch, *tensor.shape[1:])) for tensor in graph.inputs)
            graph = Graph(inputs, graph.outputs, graph.module, graph.onnx_path)
        return Deployable(architecture.key, workload, {"main": graph}, architecture=architecture)

    # ---- What every space has --------------------------------------------------------------

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self.algebra.decisions

    @property
    def log10_size(self) -> float:
        """log10 of the number of canonical rows: exact through the conditions, except where they
        reach so far that counting is infeasible; then an upper bound (product of choices)."""
        count = count_canonical(self.algebra)
        if count is None:
            return float(sum(math.log10(c) for c in self.algebra.cardinalities))
        return math.log10(count)

    def enumerate(self, limit: int = 1_000_000) -> Genotypes:
        """All canonical rows ``(N, D)`` in lexicographic order, for recorded tables and baselines.

        Raises:
            SpaceError: If there are more than ``limit``.
        """
        rows = enumerate_canonical(self.algebra, limit)
        repaired = self.canonical(rows)
        return rows if np.array_equal(rows, repaired) else np.unique(repaired, axis=0)

    def describe(self) -> dict[str, Any]:
        """What ``gnomon spaces`` shows, as JSON: name, size, decisions, named networks, an example."""
        example = next(iter(self.named), None)
        row = self.sample(1, np.random.default_rng(0))[0] if example is None else self.named_genotype(example)
        return {
            "name": self.name,
            "spec": self.spec(),
            "input_shape": list(self.workload.input_shape),
            "log10_size": self.log10_size,
            "decisions": [
                {
                    "name": d.name,
                    "choices": list(d.choices),
                    "active_when": {parent: list(allowed) for parent, allowed in d.active_when.items()},
                }
                for d in self.decisions
            ],
            "named": list(self.named),
            "example": {"name": example, "key": self.keys(row[None])[0], "config": self.config(row)},
        }

    def spec(self) -> dict[str, Any]:
        """``{"_target_": class path, **arguments}``: the space as JSON."""
        return {"_target_": f"{type(self).__module__}.{type(self).__qualname__}", **self.arguments()}

    def sample(self, n: int, rng: np.random.Generator) -> Genotypes:
        """``n`` random canonical rows ``(n, D)``; duplicates are possible."""
        return self.canonical(self.algebra.sample(n, rng))

    def mutate(self, genotypes: Genotypes, rng: np.random.Generator, rate: float | None = None) -> Genotypes:
        """Canonical mutants ``(N, D)``: each gene changes with probability ``rate`` (default 1/D)."""
        rate = 1.0 / len(self.decisions) if rate is None else rate
        if not 0.0 <= rate <= 1.0:
            raise SpaceError("not a probability", field="rate", value=rate, allowed="0 to 1")
        return self.canonical(self.algebra.mutate(genotypes, rng, rate))

    def crossover(self, mothers: Genotypes, fathers: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Canonical children ``(N, D)`` of row-wise pairs, by uniform crossover."""
        return self.canonical(self.algebra.crossover(mothers, fathers, rng))

    def canonical(self, genotypes: Genotypes) -> Genotypes:
        """Repaired rows with inactive genes at 0: equal rows are equal architectures."""
        return self.algebra.canonical(self.repair(genotypes))

    def keys(self, genotypes: Genotypes) -> list[str]:
        """Text keys of canonical rows; the identity in ledger and store."""
        return self.algebra.keys(genotypes)

    def config(self, row: Genotypes) -> dict[str, Choice]:
        """One canonical row as ``{decision: choice}``, active decisions only."""
        return self.algebra.config(row)

    def genotype(self, config: Mapping[str, Any]) -> Genotypes:
        """The canonical row ``(D,)`` of a config."""
        row: Genotypes = self.canonical(self.algebra.genotype(config)[None])[0]
        return row

    def architecture(self, row: Genotypes) -> Architecture:
        """The identity of one row, as records and files carry it."""
        return Architecture(self.spec(), self.keys(row[None])[0], self.config(row))

    def named_genotype(self, name: str) -> Genotypes:
        """The row of a named network.

        Raises:
            SpaceError: With the known names.
        """
        if name not in self.named:
            raise SpaceError(
                "no such network in this space", field="name", value=name, allowed=sorted(self.named) or "none"
            )
        return self.genotype(self.named[name])


def space_from_spec(spec: Mapping[str, Any]) -> SearchSpace:
    """The space that :meth:`SearchSpace.spec` described, in this or another process.

    Raises:
        SpaceError: If the target is not an importable SearchSpace.
    """
    target = str(spec.get("_target_", ""))
    module_name, _, class_name = target.rpartition(".")
    try:
        space_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpaceError("cannot import this space", field="_target_", value=target) from error
    if not (isinstance(space_class, type) and issubclass(space_class, SearchSpace)):
        raise SpaceError("not a SearchSpace", field="_target_", value=target)
    arguments = {key: value for key, value in spec.items() if key != "_target_"}
    try:
        return space_class(**arguments)
    except TypeError as error:
        raise SpaceError(f"wrong arguments: {error}", field="_target_", value=target) from error
