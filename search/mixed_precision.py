"""Which layers of a trained network get eight bits, under a budget of quality, for least latency.

Layers are lifted from eight bits to floats in the order of predicted loss saved per millisecond paid
(:mod:`gnomon.search.sensitivity`); how many have to be is found by bisection, and which of those need not after
all by putting them back one at a time. Each of these steps scores a really quantised file. Both ends, and points
between, are measured on the device: that is the front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..devices import Device, Protocol
from ..devices.onnx_file import deployable_from_onnx
from ..devices.onnxruntime import OnnxRuntimeDevice
from ..errors import ConfigError, MeasurementError
from ..export import Quantisation, Quantiser
from ..records import Measurement
from ..schema import Record
from ..search_spaces import Deployable
from ..tasks import Task
from .pareto import non_dominated
from .sensitivity import Inputs, Sensitivity, layer_sensitivity

Array = npt.NDArray[np.float64]
OnStep = Callable[[str], None]
"""Called with what is going on."""

RANGE_EXAMPLES = 128
"""Training examples that set the ranges."""
SENSITIVITY_EXAMPLES = 512
"""Training examples on which the outputs of each layer's quantisation are looked at."""
AT_ONCE = 128
"""Examples in one run where a file takes any number."""
PRICE_PROCESSES = 2
"""In which each layer's price is measured: it decides an order, nothing that is reported."""
LEAST_PRICE = 0.1
"""A layer costs at least this share of the median price: differences of measured latencies are noisy."""


@dataclass(frozen=True)
class MixedPoint(Record):
    """One choice of layers, as a file, scored and measured.

    Args:
        floats: Layers that are left in floats; the others are in eight bits.
        file: In the folder of the result.
        validation, test: The task's metrics of this very file.
        measurement: Of this very file; None if it was only scored.
        on_front: No other point is faster and better on validation.
    """

    floats: tuple[str, ...]
    file: str
    validation: Mapping[str, float]
    test: Mapping[str, float] = field(default_factory=dict)
    measurement: Measurement | None = None
    on_front: bool = False

    @property
    def latency_ms(self) -> float:
        """Measured.

        Raises:
            MeasurementError: If it was not, or failed.
        """
        if self.measurement is None:
            raise MeasurementError(f"{self.file} was not measured")
        return self.measurement.latency_ms


@dataclass(frozen=True)
class MixedResult(Record):
    """What came of a choice of precisions.

    Args:
        metric: Of the task, larger is better.
        keep: Share of the metric in floats that had to be kept on validation.
        layers: All layers in the order of the graph.
        order: The same in the order in which they are lifted to floats; the needful ones come first.
        points: From all layers in eight bits to all in floats; those between in that order.
        chosen: Index of the point with the needful layers in floats, which keeps the quality.
    """

    SCHEMA: ClassVar[str] = "gnomon.mixed_precision/1"

    metric: str
    keep: float
    layers: tuple[str, ...]
    order: tuple[str, ...]
    points: tuple[MixedPoint, ...]
    chosen: int

    @property
    def int8(self) -> MixedPoint:
        """All layers in eight bits."""
        return self.points[0]

    @property
    def fp32(self) -> MixedPoint:
        """All layers in floats."""
        return self.points[-1]


def lifting_order(sensitivity: Sensitivity, prices_ms: Array) -> list[str]:
    """Layers in the order in which they are lifted to floats, from all in eight bits.

    Greedy: next comes the layer that saves most predicted loss per millisecond, given what is lifted already.

    Args:
        sensitivity: Of n layers.
        prices_ms: Latency that each costs when it is lifted ``(n,)``.
    """
    positive = prices_ms[prices_ms > 0]
    floor = LEAST_PRICE * float(np.median(positive)) if len(positive) else 1.0
    prices = np.maximum(prices_ms, floor)
    quantised = np.ones(len(sensitivity.layers), dtype=bool)
    order = []
    while quantised.any():
        gain = np.where(quantised, sensitivity.savings(quantised) / prices, -np.inf)
        best = int(np.argmax(gain))
        quantised[best] = False
        order.append(sensitivity.layers[best])
    return order


def fewest(n: int, good: Callable[[int], bool]) -> int:
    """The smallest k in 0..n for which ``good(k)``, by bisection; ``good(n)`` is taken for granted.

    Args:
        good: Taken to be monotone: what keeps the quality with k layers keeps it with more. Where it is not,
            the result is still one for which it was seen to hold (or n).
    """
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        if good(middle):
            high = middle
        else:
            low = middle
    return high


def needful(lifted: Sequence[str], good: Callable[[Sequence[str]], bool]) -> list[str]:
    """``lifted`` without the layers that can go back to eight bits, the last lifted tried first.

    Args:
        lifted: In the order in which they were lifted; good itself.
        good: Whether a choice keeps the quality.
    """
    kept = list(lifted)
    for layer in reversed(lifted):
        fewer = [other for other in kept if other != layer]
        if good(fewer):
            kept = fewer
    return kept


def front_counts(n: int, chosen: int, between: int) -> list[int]:
    """Numbers of layers in floats to measure: none, the chosen, all, and ``between`` more, half of them on
    either side of the chosen."""
    below = np.linspace(0, chosen, (between + 1) // 2 + 2)
    above = np.linspace(chosen, n, between // 2 + 2)
    return sorted({round(k) for k in (*below, *above)})


class MixedPrecision:
    """The choice for one network; files go into one folder.

    Args:
        quantiser: The network, calibrated.
        task: Scores files, on validation for the choice and on test for the result.
        device: Measures ONNX files as they are (``precision=per_layer``).
        protocol: Of the measurements.
        model: The deployable of the network in floats: inputs, workload and name.
        folder: For the files.
        on_step: Called with what is going on.

    Raises:
        ConfigError: If the device would quantise the files again.
    """

    def __init__(
        self,
        quantiser: Quantiser,
        task: Task,
        device: Device,
        protocol: Protocol,
        model: Deployable,
        folder: Path,
        on_step: OnStep | None = None,
    ) -> None:
        if device.precision != "per_layer":
            raise ConfigError(
                "would not run files as they are",
                field="device.precision",
                value=device.precision,
                allowed="per_layer",
            )
        self._quantiser, self._task = quantiser, task
        self._device, self._protocol, self._model, self._folder = device, protocol, model, folder
        self._say: OnStep = on_step or (lambda text: None)
        self._written: dict[frozenset[str], Path] = {}
        self._scored: dict[frozenset[str], dict[str, float]] = {}

    def choose(self, sensitivity: Sensitivity, keep: float, between: int = 6, seed: int = 0) -> MixedResult:
        """Orders the layers, finds the fewest to lift, and measures the front.

        Args:
            sensitivity: Of the quantiser's layers.
            keep: Share of the metric in floats to keep on validation, above 0 up to 1.
            between: Points of the front besides both ends and the chosen one.

        Raises:
            ConfigError: If ``keep`` or ``between`` is out of range.
            MeasurementError: If a file cannot be measured.
        """
        if not 0 < keep <= 1:
            raise ConfigError("not a share", field="keep", value=keep, allowed="above 0, up to 1")
        if between < 0:
            raise ConfigError("must not be negative", field="between", value=between)
        n = len(sensitivity.layers)
        self._say(f"measuring what each of {n} layers costs in floats")
        order = lifting_order(sensitivity, self.prices_ms(seed))
        needed = keep * self._score(order)
        lifted = order[: fewest(n, lambda k: self._score(order[:k]) >= needed)]
        self._say(f"{len(lifted)} of {n} layers in floats keep {keep:.2%} of {self._task.metric}; fewer?")
        lifted = needful(lifted, lambda floats: self._score(floats) >= needed)
        order = [*lifted, *(layer for layer in order if layer not in lifted)]
        self._say(f"{len(lifted)} of {n} layers stay in floats")
        counts = front_counts(n, len(lifted), between)
        points = self._measured([order[:k] for k in counts], seed)
        chosen = counts.index(len(lifted))
        return MixedResult(self._task.metric, keep, sensitivity.layers, tuple(order), points, chosen)

    def prices_ms(self, seed: int = 0) -> Array:
        """Latency that each layer costs in floats while all others are in eight bits ``(n,)``; can be negative.

        Raises:
            MeasurementError: If a file cannot be measured.
        """
        choices: list[Sequence[str]] = [[], *([layer] for layer in self._quantiser.layers)]
        brief = replace(self._protocol, processes=PRICE_PROCESSES, min_processes=PRICE_PROCESSES)
        latencies = [m.latency_ms for m in self._measure(choices, seed, brief)]
        return np.array(latencies[1:]) - latencies[0]

    def _path(self, floats: Sequence[str]) -> Path:
        """The file with all layers but ``floats`` in eight bits."""
        kept, layers = frozenset(floats), self._quantiser.layers
        if kept not in self._written:
            name = f"without-{layers.index(floats[0])}" if len(kept) == 1 else f"{len(kept)}-of-{len(layers)}"
            path = self._folder / f"fp32-{name}.onnx"
            self._written[kept] = self._quantiser.write(path, [layer for layer in layers if layer not in kept])
        return self._written[kept]

    def _score(self, floats: Sequence[str]) -> float:
        key = frozenset(floats)
        if key not in self._scored:
            self._scored[key] = self._task.score(self._path(floats), "validation")
        return self._scored[key][self._task.metric]

    def _measure(
        self, choices: Sequence[Sequence[str]], seed: int, protocol: Protocol | None = None
    ) -> list[Measurement]:
        deployables = [self._deployable(floats) for floats in choices]
        return list(self._device.measure(deployables, protocol or self._protocol, seed=seed))

    def _deployable(self, floats: Sequence[str]) -> Deployable:
        path = self._path(floats)
        main = replace(self._model.graphs["main"], module=None, onnx_path=path)
        return replace(self._model, name=path.name, graphs={"main": main}, architecture=None)

    def _measured(self, choices: Sequence[Sequence[str]], seed: int) -> tuple[MixedPoint, ...]:
        """Scored on both splits, measured together, and the front among them marked."""
        points = []
        for floats, measurement in zip(choices, self._measure(choices, seed), strict=True):
            self._score(floats)
            path = self._path(floats)
            validation, test = self._scored[frozenset(floats)], self._task.score(path, "test")
            points.append(MixedPoint(tuple(floats), path.name, validation, test, measurement))
        values = np.array([[-p.validation[self._task.metric], p.latency_ms] for p in points])
        return tuple(replace(p, on_front=bool(on)) for p, on in zip(points, non_dominated(values), strict=True))


def mixed_precision(
    source: Path,
    task: Task,
    device: Device,
    protocol: Protocol,
    folder: Path,
    *,
    keep: float = 0.995,
    how: Quantisation | None = None,
    between: int = 6,
    batch: int = 1,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> MixedResult:
    """Chooses each layer's precision for one trained ONNX file; see :class:`MixedPrecision`.

    Args:
        source: The file in floats, of one input.
        task: Whose training examples set ranges and sensitivities, and whose metric is kept.
        device: An :class:`~gnomon.devices.onnxruntime.OnnxRuntimeDevice` with ``precision="per_layer"``.
        folder: Gets the files; made if needed.
        keep: Share of the metric to keep on validation.
        how: Granularity of the eight bits.
        between: Points of the front besides both ends and the chosen one.
        batch: For which latency counts.

    Raises:
        GnomonError: If the file, the task or the device does not allow it.
    """
    if not isinstance(device, OnnxRuntimeDevice):
        raise ConfigError("does not run such files", field="device", value=device.name, allowed="onnxruntime")
    model = deployable_from_onnx(source, batch=batch)
    folder.mkdir(parents=True, exist_ok=True)
    ranges = _inputs(task, model, RANGE_EXAMPLES)
    quantiser = Quantiser(source, ranges, how)
    if not quantiser.layers:
        raise ConfigError("has no layer that could be quantised", field="from", value=str(source))
    say: OnStep = on_step or (lambda text: None)
    say(f"looking at {len(quantiser.layers)} layers, one at a time")
    sensitivity = layer_sensitivity(quantiser, _inputs(task, model, SENSITIVITY_EXAMPLES), classes=len(task.labels))
    choice = MixedPrecision(quantiser, task, device, protocol, model, folder, on_step)
    return choice.choose(sensitivity, keep, between, seed)


def _inputs(task: Task, model: Deployable, n: int) -> Inputs:
    """Training examples in batches that the file takes."""
    specs = model.graphs["main"].inputs
    if len(specs) != 1:
        raise ConfigError("not a model of one input", field="from", value=[spec.name for spec in specs])
    (spec,) = specs
    examples = task.examples(n)
    if examples is None or examples.shape[1:] != tuple(spec.shape[1:]):
        raise ConfigError(
            "gives no examples that this model takes",
            field="task",
            value=None if examples is None else examples.shape[1:],
            allowed=f"examples of shape {tuple(spec.shape[1:])}",
        )
    size = AT_ONCE if 0 in spec.dynamic_axes else spec.shape[0]
    starts = range(0, len(examples) - size + 1, size) if len(examples) >= size else range(0)
    if not starts:
        raise ConfigError("has too few training examples", field="task", value=len(examples), allowed=f"{size} or more")
    return [{spec.name: examples[start : start + size].astype(spec.dtype)} for start in starts]
