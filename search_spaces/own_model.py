"""The sub-networks of a user's own model: fewer blocks, narrower blocks, smaller depthwise kernels."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .additive import AdditiveEncoding
from .algebra import Genotypes
from .costs import Costs
from .decision import Choice, Decision
from .graph_costs import traced
from .graph_encoded import GraphEncodedSpace
from .image_shape import checked_image_shape
from .mobile_cnn_skeleton import rounded
from .own_model_parts import SMALLEST_KERNEL, Parts, Width, find_parts
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

    from .elastic.conv import KernelSharing
    from .own_model_elastic import ElasticOwnModel
    from .own_model_tables import OwnModelTables


class OwnModel(GraphEncodedSpace):
    """Starts from a given torch model of images, usually trained, and makes its depth, widths and kernels elastic.

    The model is traced with ``torch.fx``. Decisions, named by the modules' paths:

    - ``<path>.depth``: of residual blocks that follow one another, how many of the first are kept. A block can
      go if it is a submodule that adds something to its only input; it becomes ``nn.Identity``.
    - ``<path>.width``: channels that a convolution writes and that no shortcut ties to others, for example the
      expanded channels of an inverted bottleneck. What passes and reads them shrinks, too.
    - ``<path>.kernel``: the kernel of a depthwise convolution of 5x5 or more, down to 3x3.

    :meth:`elastic` and :meth:`initial` start from the given weights, channels sorted by importance. :meth:`build`
    gives the same networks freshly initialised as the model's own code does it. :attr:`fixed` says what stays as it
    is, and why.

    Costs and features are look-up tables, made from one trace of the given model.

    Args:
        model: ``{"_target_": "package.module.function or class", **arguments}``, which gives the model.
        input_shape: ``(channels, height, width)`` of an image.
        classes: Number of outputs that is expected; None for any.
        weights: A safetensors file of the model's state dict; None where the model comes with its weights.
        widths: Ratios of the given channels to choose from; 1 is always among them.
        sharing: How a smaller kernel comes from the given one; see
            :class:`~gnomon.search_spaces.elastic.conv.ElasticConv2d`.
    """

    name: ClassVar[str] = "own_model"
    starts_trained: ClassVar[bool] = True

    def __init__(
        self,
        model: Mapping[str, Any],
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int | None = None,
        weights: str | None = None,
        widths: Sequence[float] = (0.5, 0.75, 1.0),
        sharing: KernelSharing = "transform",
    ) -> None:
        import torch

        from .elastic.conv import KERNEL_SHARINGS

        checked_image_shape(input_shape, smallest=1)
        if sharing not in KERNEL_SHARINGS:
            raise SpaceError("unknown", field="sharing", value=sharing, allowed=KERNEL_SHARINGS)
        self.sharing = sharing
        self._model = _checked_model(model)
        self._weights = None if weights is None else str(Path(weights).absolute())
        self._widths = _checked_widths(widths)
        self._classes = classes
        with torch.random.fork_rng(devices=[]):
            given = self.given()
        _check_outputs(given, input_shape, classes)
        self.parts: Parts = find_parts(given, input_shape)
        decisions = self._decisions()
        if not decisions:
            reasons = "; ".join(f"{path} {reason}" for path, reason in self.fixed.items())
            raise SpaceError(
                "nothing in this model can be made smaller",
                field="model",
                value=self._model["_target_"],
                allowed="residual blocks, inner widths, depthwise kernels above 3x3, as traced by torch.fx",
                hint=reasons or None,
            )
        super().__init__(decisions, Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return {
            "model": dict(self._model),
            "input_shape": list(self.workload.input_shape),
            "classes": self._classes,
            "weights": self._weights,
            "widths": list(self._widths),
            "sharing": self.sharing,
        }

    @property
    def fixed(self) -> Mapping[str, str]:
        """Modules with weights that stay as they are because of something unsupported, and why."""
        return self.parts.fixed

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``given``, the model itself (the reference), and ``smallest``."""
        ends = np.stack([self.algebra.cardinalities - 1, np.zeros(len(self.decisions))]).astype(np.int8)
        given, smallest = (self.config(row) for row in self.canonical(ends))
        return {"given": given, "smallest": smallest}

    def given(self, *, fresh: bool = False) -> nn.Module:
        """The user's model, with the weights of the file unless it is to be ``fresh``.

        Raises:
            SpaceError: If it cannot be made, or the weights are not its.
        """
        model = _made(self._model)
        if self._weights is not None and not fresh:
            _load_weights(model, self._weights)
        return model

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The user's model with modules replaced by smaller ones, freshly initialised by its own code.

        Where the model's code loads weights by itself, these are kept.
        """
        from .own_model_elastic import elastic_modules, replace, resize, shrink

        genotype_config = self.config(self.genotype(config))
        model = self.given(fresh=True)
        modules = elastic_modules(model, self.parts, self.sharing)
        for path, module in modules.items():
            replace(model, path, module)
        resize(modules, self.parts, genotype_config)
        return shrink(model, modules, self.parts, genotype_config)

    def initial(self, config: Mapping[str, Any]) -> nn.Module:
        """The config's part of the given weights, as :meth:`elastic` holds them."""
        return self.elastic().extract(config)

    def elastic(self) -> ElasticOwnModel:
        """All sub-networks in the given weights, with channels sorted by importance."""
        from .own_model_elastic import ElasticOwnModel

        return ElasticOwnModel(self)

    @cached_property
    def tables(self) -> OwnModelTables:
        """Costs and features of everything that can be chosen."""
        import torch

        from .own_model_tables import OwnModelTables

        with torch.random.fork_rng(devices=[]):  # The user's code may initialise weights.
            return OwnModelTables(self)

    def costs(self, genotypes: Genotypes) -> Costs:
        return self.tables.look_up(genotypes)

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """The features of traced graphs that add up ``(N, F)``: all but those of the critical path."""
        return self.tables.encoding.encode(genotypes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.tables.feature_names

    def additive_encoding(self) -> AdditiveEncoding:
        return self.tables.encoding

    def execution_counts(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        return self.tables.execution_counts(genotypes)

    def _decisions(self) -> tuple[Decision, ...]:
        decisions = [Decision(depth_name(run), tuple(range(len(run) + 1)), ordered=True) for run in self.parts.runs]
        for width in self.parts.widths:
            choices = self._width_choices(width)
            if len(choices) > 1:
                when = self._condition(width.name)
                decisions.append(Decision(f"{width.name}.width", choices, when, ordered=True))
        for path, largest in self.parts.kernels.items():
            kernels = tuple(range(SMALLEST_KERNEL, largest + 1, 2))
            decisions.append(Decision(f"{path}.kernel", kernels, self._condition(path), ordered=True))
        return tuple(decisions)

    def _width_choices(self, width: Width) -> tuple[int, ...]:
        """Multiples of 8 (of 4 below 32 channels, of 1 below 8), and the given number."""
        multiple = 8 if width.channels >= 32 else 4 if width.channels >= 8 else 1
        sizes = {rounded(width.channels * ratio, multiple) for ratio in self._widths}
        return tuple(sorted({*(size for size in sizes if size < width.channels), width.channels}))

    def _condition(self, path: str) -> dict[str, tuple[Choice, ...]]:
        """Parts of a block matter only if it is kept."""
        for run in self.parts.runs:
            for index, block in enumerate(run):
                if path.startswith(f"{block}."):
                    return {depth_name(run): tuple(range(index + 1, len(run) + 1))}
        return {}


def depth_name(run: Sequence[str]) -> str:
    """The decision on how many blocks of a run are kept."""
    return f"{run[0]}.depth"


def _checked_model(model: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(model, Mapping) or not isinstance(model.get("_target_"), str):
        raise SpaceError(
            "says not where the model is made",
            field="model",
            value=model,
            allowed="{_target_: package.module.function, and its arguments}",
        )
    return dict(model)


def _checked_widths(widths: Sequence[float]) -> tuple[float, ...]:
    ratios = tuple(widths) if isinstance(widths, Sequence) else ()
    if not ratios or any(isinstance(r, bool) or not isinstance(r, (int, float)) or not 0 < r <= 1 for r in ratios):
        raise SpaceError("not ratios of widths", field="widths", value=widths, allowed="numbers above 0, up to 1")
    return tuple(float(ratio) for ratio in ratios)


def _made(model: Mapping[str, Any]) -> nn.Module:
    """The module that the target gives."""
    from torch import nn

    target = str(model["_target_"])
    module_name, _, name = target.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpaceError(f"cannot import this model: {error}", field="model._target_", value=target) from error
    arguments = {key: value for key, value in model.items() if key != "_target_"}
    try:
        made = factory(**arguments)
    except Exception as error:  # The user's own code may raise anything.
        raise SpaceError(f"cannot make this model: {error}", field="model", value=dict(model)) from error
    if not isinstance(made, nn.Module):
        raise SpaceError("gives no torch module", field="model._target_", value=target, allowed="torch.nn.Module")
    return made


def _load_weights(model: nn.Module, path: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SpaceError(f"cannot read these weights: {error}", field="weights", value=path) from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise SpaceError(f"not the weights of this model: {reason}", field="weights", value=path) from error


def _check_outputs(model: nn.Module, input_shape: Sequence[int], classes: int | None) -> None:
    if classes is None:
        return
    graph, _, shapes = traced(model, input_shape)
    outputs = [shapes[node] for end in graph.nodes if end.op == "output" for node in end.all_input_nodes]
    if outputs != [(1, classes)]:
        raise SpaceError("the model's outputs are other", field="classes", value=classes, allowed=str(outputs))
