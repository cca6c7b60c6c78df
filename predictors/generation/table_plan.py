"""Which models to measure for a look-up table of operators, and the table from what was measured.

An operator's entry is the difference between two models through the same runtime: one of ``copies`` such operators
between embedding and output layer, and one without operators, by ``copies``. An operator timed as a model of its own
would carry a whole call's overhead, and would find its weights and state in the nearest cache, which within a model
they are not: of both errors ``benchmarks/generation_latency.py`` has the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import PredictorError
from ...records.measurement import Measurement
from ...search_spaces import Deployable, Workload
from ...search_spaces.hybrid_slm.interface import graphs
from ...search_spaces.hybrid_slm.specs import LanguageModelSpec, Operator
from .metrics import call_ms
from .operator_table import Entry, OperatorTable, TableSource
from .parts import Part, base_part, neighbours, operator_part, part_macs
from .work import Phase, checked_phase

if TYPE_CHECKING:
    from torch import nn

COPIES = 8


class Measures(Protocol):
    """What measures deployables: a device."""

    def measure(self, deployables: Sequence[Deployable], protocol: Any, *, seed: int = 0) -> Iterator[Measurement]:
        """One measurement a deployable."""


@dataclass(frozen=True)
class TableModel:
    """A model that is measured for a table.

    Args:
        name: Unique within the plan; what its deployable must be called.
        spec: The model.
        workload: Phase and length.
        part: What it is measured for.
    """

    name: str
    spec: LanguageModelSpec
    workload: Workload
    part: Part

    def deployable(self) -> Deployable:
        """What a device runs: one call of the phase's graph, with fresh weights."""
        made, plan = graphs(self.spec, self.workload, self._module)
        called = {call.graph for call in plan}
        return Deployable(self.name, self.workload, {name: made[name] for name in called}, plan)

    def _module(self, graph: str) -> nn.Module:
        from ...search_spaces.hybrid_slm.graphs import graph_modules
        from ...search_spaces.hybrid_slm.model import LanguageModel

        return graph_modules(LanguageModel(self.spec))[graph]


@dataclass(frozen=True)
class TablePlan:
    """The models of a table.

    Args:
        operators: One for each entry, at any phase and length.
        bases: Models whose vocabulary and width count; their operators do not.
        lengths: By phase, at which lengths (tokens of a prefill, or before a step; meta tokens counted).
        copies: Of an operator in one model; as many as models of interest have operators, so that weights and states
            lie as deep in the caches as theirs.
        batch: Sequences at once.
    """

    operators: tuple[Operator, ...]
    bases: tuple[LanguageModelSpec, ...]
    lengths: Mapping[Phase, Sequence[int]]
    copies: int = COPIES
    batch: int = 1

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise PredictorError("not a number of copies", field="copies", value=self.copies, allowed="1 or more")
        for phase, lengths in self.lengths.items():
            checked_phase(phase)
            if not lengths or min(lengths) < (1 if phase == "prefill" else 0):
                raise PredictorError("not lengths", field=f"lengths.{phase}", value=list(lengths), allowed="of tokens")

    @classmethod
    def of_models(
        cls,
        specs: Iterable[LanguageModelSpec],
        lengths: Mapping[Phase, Sequence[int]],
        *,
        copies: int = COPIES,
        batch: int = 1,
        sparse: bool = False,
    ) -> TablePlan:
        """The plan of all operators and bases of some models, each once.

        Args:
            specs: The models.
            lengths, copies, batch: See the class.
            sparse: Leave out what lies between two others and will be interpolated.
        """
        operators: dict[Part, Operator] = {}
        bases: dict[Part, LanguageModelSpec] = {}
        for spec in specs:
            bases.setdefault(base_part(spec), spec)
            for operator in spec.operators:
                operators.setdefault(operator_part(operator), operator)
        kept = _outermost([*operators, *bases]) if sparse else {*operators, *bases}
        return cls(
            tuple(operator for part, operator in operators.items() if part in kept),
            tuple(spec for part, spec in bases.items() if part in kept),
            lengths,
            copies,
            batch,
        )

    @cached_property
    def models(self) -> tuple[TableModel, ...]:
        """What to measure, each once. Steps that do the same work at every length are measured at the first."""
        found: dict[str, TableModel] = {}
        vocabulary = max((base.vocabulary for base in self.bases), default=1)
        bases = {base_part(base): base for base in self.bases}
        for operator in self.operators:
            carrier = self._carrier(operator, bases, vocabulary)
            model = self._model(carrier, (operator,) * self.copies)
            bases.setdefault(base_part(model), carrier)
            for phase, lengths in self.lengths.items():
                for length in _telling(operator_part(operator), phase, lengths):
                    self._add(found, model, phase, length, operator_part(operator))
        for part, base in bases.items():
            for phase, lengths in self.lengths.items():
                for length in lengths if phase == "prefill" else [max(lengths)]:
                    self._add(found, self._model(base, ()), phase, length, part)
        return tuple(found.values())

    def measure(self, device: Measures, protocol: Any, *, seed: int = 0) -> OperatorTable:
        """The table of a device: all :attr:`models`, measured together.

        Args:
            device: Any :class:`~gnomon.devices.Device` that takes torch modules or exports them.
            protocol: A :class:`~gnomon.devices.Protocol`.
            seed: Of the order.

        Raises:
            DeviceError: If the device cannot run here.
            MeasurementError: If a model failed.
        """
        return self.table(device.measure([model.deployable() for model in self.models], protocol, seed=seed))

    def table(self, measurements: Iterable[Measurement]) -> OperatorTable:
        """The table from measurements of all :attr:`models`, which it knows by their names.

        Raises:
            PredictorError: If one is missing.
            MeasurementError: If one failed.
        """
        by_name = {measurement.architecture: measurement for measurement in measurements}
        missing = [model.name for model in self.models if model.name not in by_name]
        if missing or not by_name:
            raise PredictorError("not measured", field="measurements", value=missing[:3], allowed="all of plan.models")
        entries = []
        for model in self.models:
            latency = call_ms(by_name[model.name])
            if model.spec.operators:
                base = call_ms(by_name[self._base_name(model)])
                latency = max(latency - base, 0.0) / len(model.spec.operators)
            phase = checked_phase(model.workload.phase)
            entries.append(Entry(model.part, phase, length_of(model.workload), latency))
        last = max(by_name.values(), key=lambda measurement: measurement.timestamp)
        source = TableSource(
            last.setting, last.fingerprint, last.timestamp, last.statistic, self.copies, self.batch
        )  # fmt: skip
        return OperatorTable(tuple(entries), source)

    # ---- Models --------------------------------------------------------------------------------

    def _carrier(
        self, operator: Operator, bases: Mapping[Part, LanguageModelSpec], vocabulary: int
    ) -> LanguageModelSpec:
        """A model of the operator's width: one that is asked for, if there is one."""
        width = operator.sizes.width
        of_this_width = [base for base in bases.values() if base.width == width]
        longest = max(max(lengths) for lengths in self.lengths.values())
        return (of_this_width or [LanguageModelSpec(vocabulary, width, (), max_length=longest + 1)])[0]

    @staticmethod
    def _model(base: LanguageModelSpec, operators: tuple[Operator, ...]) -> LanguageModelSpec:
        """Meta tokens, exits and routers are no parts: a length says how many tokens there are."""
        return LanguageModelSpec(
            base.vocabulary, base.width, operators, tied=base.tied, max_length=base.max_length + base.meta_tokens
        )

    def _add(
        self, found: dict[str, TableModel], spec: LanguageModelSpec, phase: Phase, length: int, part: Part
    ) -> None:
        name = _name(spec, phase, length, part)
        workload = (
            Workload((1,), self.batch, context=length, phase=phase)
            if phase == "step"
            else Workload((length,), self.batch, source_length=length, phase=phase)
        )
        found.setdefault(name, TableModel(name, spec, workload, part))

    def _base_name(self, model: TableModel) -> str:
        """Of the model without operators beside ``model``."""
        phase = checked_phase(model.workload.phase)
        spec = self._model(model.spec, ())
        length = length_of(model.workload) if phase == "prefill" else max(self.lengths[phase])
        return _name(spec, phase, length, base_part(spec))


def length_of(workload: Workload) -> int:
    """Tokens of a prefill, or before a step.

    Raises:
        PredictorError: If the workload does not say.
    """
    phase = checked_phase(workload.phase)
    length = workload.context if phase == "step" else workload.source_length
    if length is None:
        raise PredictorError("does not say how many tokens there are", field="workload", value=workload.to_dict())
    return length


def _telling(part: Part, phase: Phase, lengths: Sequence[int]) -> list[int]:
    """The lengths at which a part does different work; all of a prefill's."""
    if phase == "prefill":
        return list(lengths)
    first: dict[float, int] = {}
    for length in sorted(lengths):
        first.setdefault(part_macs(part, phase, length), length)
    return list(first.values())


def _outermost(parts: Sequence[Part]) -> set[Part]:
    """Those that do not lie between two others."""
    kept = list(parts)
    for part in parts:
        others = [other for other in kept if other != part]
        if neighbours(part, others) is not None:
            kept = others
    return set(kept)


def _name(spec: LanguageModelSpec, phase: Phase, length: int, part: Part) -> str:
    sizes = "-".join(str(size) for size in part.sizes)
    return f"{len(spec.operators)}x-{part.kind}-{sizes}-in-{spec.width}-{spec.vocabulary}-{phase}-{length}"
