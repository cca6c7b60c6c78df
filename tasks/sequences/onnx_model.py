"""An exported model of sequences as what decoding needs: the graph that reads, and the graph of one step.

Any two files whose names of inputs and outputs fit together will do: an output of either graph is kept for
the input of the step that has its name; a step's output ``next_x`` becomes ``x`` or ``past_x`` of the step
after it. What no output of the reading graph gives begins empty (caches) or at zero.

Shapes: B sentences (or beams), S source tokens, T target tokens, V target vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import TaskError
from ..onnx_session import Arrays, opened, run

if TYPE_CHECKING:
    import torch

READERS = ("encoder", "prefill")
STEP = "step"
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(double)": np.float64}


@dataclass(frozen=True)
class OnnxState:
    """What the next step is fed besides tokens, by input name; the first axis is rows."""

    arrays: Arrays


class OnnxSequenceToSequence:
    """The files ``encoder.onnx`` (or ``prefill.onnx``) and ``step.onnx`` of a model's folder as a
    :class:`~gnomon.search_spaces.sequence.SequenceToSequence`, through ONNX Runtime.

    Every row is a sentence of its own, beams too.

    Args:
        folder: Where both files are.
        threads: Of ONNX Runtime.

    Raises:
        TaskError: If a file is missing or damaged, or they do not fit together.
    """

    def __init__(self, folder: Path | str, threads: int = 1) -> None:
        folder = Path(folder)
        reader, step = _files(folder)
        self._reader, self._step = opened(reader, threads), opened(step, threads)
        self._inputs = {node.name: node for node in self._step.get_inputs()}
        self._outputs = [node.name for node in self._step.get_outputs()]
        if "tokens" not in self._inputs or "logits" not in self._outputs:
            raise TaskError(
                f"{step} is no decode step",
                field="inputs",
                value=list(self._inputs),
                allowed="an input `tokens` and an output `logits`",
            )
        self._feeds = {name: _next_name(name, self._inputs, step) for name in self._outputs if name != "logits"}
        read = {output.name for output in self._reader.get_outputs()}
        unfed = ({"tokens"} | read | set(self._feeds.values())) ^ set(self._inputs)
        if unfed:
            raise TaskError(f"{reader.name} and {step.name} do not fit together", field="inputs", value=sorted(unfed))

    def __call__(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, T, V)`` of the token after each of ``target`` ``(B, T)``, step by step."""
        import torch

        state, logits = self.start(source), []
        for tokens in target.unbind(dim=1):
            next_logits, state = self.step(tokens, state)
            logits.append(next_logits)
        return torch.stack(logits, dim=1)

    def start(self, source: torch.Tensor) -> OnnxState:
        """See :meth:`SequenceToSequence.start`."""
        (node,) = self._reader.get_inputs()
        names = [output.name for output in self._reader.get_outputs()]
        read = dict(zip(names, run(self._reader, {node.name: source.cpu().numpy()}), strict=True))
        known: Arrays = {name: self._of_one_beam(name, array) for name, array in read.items()}
        missing = [name for name in self._inputs if name not in known and name != "tokens"]
        known.update({name: self._empty(name, len(source)) for name in missing})
        return OnnxState(known)

    def step(self, tokens: torch.Tensor, state: OnnxState) -> tuple[torch.Tensor, OnnxState]:
        """See :meth:`SequenceToSequence.step`."""
        import torch

        given = {"tokens": tokens.cpu().numpy()[:, None], **state.arrays}
        results = dict(zip(self._outputs, run(self._step, given), strict=True))
        logits = torch.from_numpy(results["logits"][:, 0])
        following = {self._feeds[name]: array for name, array in results.items() if name != "logits"}
        return logits, OnnxState({**state.arrays, **following})

    def reorder(self, state: OnnxState, rows: torch.Tensor) -> OnnxState:
        """See :meth:`SequenceToSequence.reorder`."""
        chosen = rows.cpu().numpy()
        return OnnxState({name: array[chosen] for name, array in state.arrays.items()})

    def _of_one_beam(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A prompt's caches were repeated for the beams with which the latency is measured: the first ones."""
        shape = self._inputs[name].shape
        has_beams = len(shape) > 1 and not isinstance(shape[1], int)
        return array[:, :1] if has_beams else array

    def _empty(self, name: str, rows: int) -> npt.NDArray[Any]:
        """A cache without tokens, or zeros: free axes are rows, one beam, and no tokens."""
        node = self._inputs[name]
        free = iter((rows, 1, 0))
        shape = [side if isinstance(side, int) and axis > 1 else next(free) for axis, side in enumerate(node.shape)]
        return np.zeros(shape, DTYPES[node.type])


def _files(folder: Path) -> tuple[Path, Path]:
    """The graph that reads and the one of a step."""
    reader = next((path for name in READERS if (path := folder / f"{name}.onnx").is_file()), None)
    step = folder / f"{STEP}.onnx"
    if reader is None or not step.is_file():
        raise TaskError(
            "not the folder of a model of sequences",
            field="model",
            value=str(folder),
            allowed="one with step.onnx and encoder.onnx or prefill.onnx",
        )
    return reader, step


def _next_name(output: str, inputs: Mapping[str, Any], path: Path) -> str:
    stem = output.removeprefix("next_")
    for name in (stem, f"past_{stem}"):
        if output.startswith("next_") and name in inputs:
            return name
    raise TaskError(f"{path} gives {output}, which no step takes", field="inputs", value=list(inputs))
