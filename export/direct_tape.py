"""Records the ATen operators that a torch module runs, at one or two sizes of its dynamic axes.

The module really runs, so that Python control flow, in-place operators and shapes are those of torch.
What two runs do not have in common depends on a size in a way that one graph cannot express.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import ExportError
from ..search_spaces import TensorSpec
from .onnx_export import evaluation_mode, example_inputs

if TYPE_CHECKING:
    import torch
    from torch import nn


class NotDirectError(ExportError):
    """This module needs torch's exporter; the message says which part of it."""


@dataclass(frozen=True)
class Value:
    """Stands for a tensor in a step's arguments. Each write in place makes a new value."""

    index: int


@dataclass(frozen=True)
class Step:
    """One call of an operator.

    Args:
        operator: For example ``aten.relu_.default``.
        arguments: By name, defaults included; tensors are :class:`Value`.
        outputs: Indices of the values that it makes or writes.
        reason: Why it cannot be written as a node; empty if nothing is known against it.
    """

    operator: str
    arguments: Mapping[str, Any]
    outputs: tuple[int, ...]
    reason: str = ""

    def reads(self) -> Iterator[int]:
        """Indices of the values among its arguments."""
        for argument in self.arguments.values():
            for item in argument if isinstance(argument, (list, tuple)) else (argument,):
                if isinstance(item, Value):
                    yield item.index


@dataclass
class Tape:
    """What one run did.

    Args:
        steps: In order.
        tensors: By value index; the first are the inputs.
        outputs: Value indices of what the module returned.
        varying: Indices of values that depend on the inputs.
    """

    steps: list[Step] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    varying: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Recording:
    """Two runs that did the same.

    Args:
        tapes: Of equal structure.
        sizes: Of the dynamic axes by name, for each tape.
        steps: Those that the outputs need, in order.
    """

    tapes: tuple[Tape, Tape]
    sizes: tuple[Mapping[str, int], Mapping[str, int]]
    steps: tuple[Step, ...]

    def shapes(self, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A value's shape on each tape."""
        first, second = (tape.tensors[index].shape for tape in self.tapes)
        return tuple(first), tuple(second)

    def shape(self, index: int) -> tuple[int | None, ...]:
        """A value's shape; None for what differs between the runs."""
        return tuple(
            lengths[0] if len(set(lengths)) == 1 else None for lengths in zip(*self.shapes(index), strict=True)
        )

    def is_constant(self, index: int) -> bool:
        """Whether a value does not depend on the inputs."""
        return index not in self.tapes[0].varying

    def constant(self, index: int) -> torch.Tensor:
        """The tensor of a constant value.

        Raises:
            NotDirectError: If it differs between the runs, hence depends on a size (or on chance).
        """
        import torch

        first, second = (tape.tensors[index] for tape in self.tapes)
        if first is not second and not torch.equal(first, second):
            raise NotDirectError("a constant depends on the size of the input, or on chance")
        return first


def record(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> Recording:
    """Runs ``module`` twice in evaluation mode, on other random inputs and other sizes of its dynamic axes.

    Raises:
        NotDirectError: If the runs differ in more than sizes, return something other than tensors, read
            numbers out of tensors, or write where another tensor can see it.
    """
    import torch

    symbols = {
        name: 1 if axis == 0 else max(spec.shape[axis], 2)
        for spec in inputs
        for axis, name in spec.dynamic_axes.items()
    }
    sizes = (symbols, {name: length + 1 for name, length in symbols.items()})
    with torch.random.fork_rng(devices=[]):
        first, second = (_run(module, example_inputs(inputs, module, each, i)) for i, each in enumerate(sizes))
    tapes, steps = (first, second), tuple(_common(first, second))
    return Recording(tapes, sizes, tuple(_needed(steps, tapes[0].outputs)))


def _run(module: nn.Module, inputs: Sequence[torch.Tensor]) -> Tape:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    tape = Tape()
    recorder = _Recorder(tape, inputs)

    class Mode(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            """torch's hook for modes that run no compiled code: wrapping this one would import its compiler (1 s)."""
            return False

        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            recorder.add(function, args, kwargs or {}, found)
            return found

    with evaluation_mode(module), Mode():  # type: ignore[no-untyped-call]
        returned = module(*inputs)
    outputs = (returned,) if isinstance(returned, torch.Tensor) else returned
    if not isinstance(outputs, (tuple, list)) or not all(isinstance(tensor, torch.Tensor) for tensor in outputs):
        raise NotDirectError("it returns something other than tensors")
    tape.outputs = tuple(recorder.value(tensor).index for tensor in outputs)
    return tape


class _Recorder:
    """Writes a tape. Tensors are told apart by identity, hence all are kept until the end."""

    def __init__(self, tape: Tape, inputs: Sequence[torch.Tensor]) -> None:
        self._tape = tape
        self._index: dict[int, int] = {}
        self._sharing: defaultdict[int, set[int]] = defaultdict(set)
        tape.varying.update(self._new(tensor) for tensor in inputs)

    def value(self, tensor: torch.Tensor) -> Value:
        """The current value of a tensor; one that no step made is a constant."""
        index = self._index.get(id(tensor))
        return Value(self._new(tensor) if index is None else index)

    def add(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], found: Any) -> None:
        import torch

        schema = function._schema
        given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | dict(kwargs)
        arguments = {a.name: self._plain(given.get(a.name, a.default_value)) for a in schema.arguments}
        step = Step(str(function), arguments, ())
        varies = not self._tape.varying.isdisjoint(step.reads())
        written = [
            given[a.name] for a in schema.arguments if a.alias_info and a.alias_info.is_write and a.name in given
        ]
        if any(not isinstance(tensor, torch.Tensor) or self._is_shared(tensor) for tensor in written):
            raise NotDirectError(f"{function} writes in place where another tensor can see it")
        made = found if isinstance(found, (tuple, list)) else (found,)
        if varies and not all(isinstance(tensor, torch.Tensor) for tensor in made):
            raise NotDirectError(f"{function} reads numbers out of tensors")
        fresh = [t for t in made if isinstance(t, torch.Tensor) and not any(t is other for other in written)]
        outputs = tuple(self._new(tensor) for tensor in (*written, *fresh))
        if varies:
            self._tape.varying.update(outputs)
        self._tape.steps.append(Step(step.operator, arguments, outputs))

    def _is_shared(self, tensor: torch.Tensor) -> bool:
        """Whether a write would also be one to a parameter, a constant or another tensor on the tape."""
        index = self._index.get(id(tensor))
        others = self._sharing[tensor.untyped_storage()._cdata] - {id(tensor)}
        return index is None or index not in self._tape.varying or bool(others)

    def _new(self, tensor: torch.Tensor) -> int:
        index = len(self._tape.tensors)
        self._tape.tensors.append(tensor)
        self._index[id(tensor)] = index
        self._sharing[tensor.untyped_storage()._cdata].add(id(tensor))
        return index

    def _plain(self, argument: Any) -> Any:
        import torch

        if isinstance(argument, torch.Tensor):
            return self.value(argument)
        if isinstance(argument, (tuple, list)):
            return tuple(self._plain(item) for item in argument)
        return argument


RESHAPES = frozenset(("aten.view.default", "aten._unsafe_view.default"))
"""Their target is read from the shape of what they made, so that it may differ between the runs."""


def _common(first: Tape, second: Tape) -> Iterator[Step]:
    """The steps of the first tape, with a reason where the second did it with other arguments."""
    different = NotDirectError("what it does depends on its input")
    if len(first.steps) != len(second.steps) or first.outputs != second.outputs:
        raise different
    for step, twin in zip(first.steps, second.steps, strict=True):
        if (step.operator, step.outputs, *step.reads()) != (twin.operator, twin.outputs, *twin.reads()):
            raise different
        same = step.operator in RESHAPES or step.arguments == twin.arguments
        yield step if same else replace(step, reason="has arguments that depend on the size of the input")


def _needed(steps: Sequence[Step], outputs: Sequence[int]) -> list[Step]:
    """Those that the outputs depend on."""
    wanted, needed = set(outputs), []
    for step in reversed(steps):
        if not wanted.isdisjoint(step.outputs):
            wanted.update(step.reads())
            needed.append(step)
    return needed[::-1]


def readers(steps: Sequence[Step], outputs: Sequence[int]) -> Counter[int]:
    """How often each value is read, by a step or by the caller."""
    return Counter([*outputs, *(index for step in steps for index in step.reads())])
