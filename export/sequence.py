"""Exported sequence models through ONNX Runtime: what reads the source, and a step with its caches.

Shapes: B sentences (or beams), S source tokens, T target tokens, V target vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..errors import ExportError
from ..search_spaces.hat.interface import READERS, STEP, fed_input
from .check import open_session
from .onnx_export import file_name, first_line

Array = npt.NDArray[Any]
Tokens = TypeVar("Tokens")
"""A numpy array or a torch tensor of int64; logits come back as the same."""

OnnxState = Mapping[str, Array]
"""Inputs of the next step by name, tokens excepted; a row a sentence."""


class OnnxSequenceModel:
    """The files ``encoder.onnx`` (or ``prefill.onnx``) and ``step.onnx`` of a model's folder as a
    :class:`~gnomon.search_spaces.sequence.SequenceToSequence`, on numpy arrays or torch tensors alike.

    Args:
        folder: Where the files are.
        threads: Of each session.

    Raises:
        ExportError: If a file is missing or not valid, or the two do not fit together.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        folder = Path(folder)
        reader = next((name for name in READERS if (folder / file_name(name)).is_file()), None)
        if reader is None or not (folder / file_name(STEP)).is_file():
            raise ExportError(
                "not the folder of a sequence model",
                field="folder",
                value=str(folder),
                allowed="one with step.onnx and encoder.onnx or prefill.onnx",
            )
        self._reader = open_session(folder / file_name(reader), threads=threads)
        self._step = open_session(folder / file_name(STEP), threads=threads)
        self._read_names = [value.name for value in self._reader.get_outputs()]
        self._step_names = [value.name for value in self._step.get_outputs()]
        inputs = {value.name: value for value in self._step.get_inputs()}
        # What the reader does not give is empty at the start: caches without tokens, positions of 0.
        self._initial = {
            name: (value.shape, np.float32 if "float" in value.type else np.int64)
            for name, value in inputs.items()
            if name not in self._read_names and name != "tokens"
        }
        unfed = {"tokens", *self._read_names, *map(fed_input, self._step_names[1:])} ^ set(inputs)
        if unfed:
            raise ExportError("the two graphs do not fit together", field="inputs", value=sorted(unfed))

    def __call__(self, source: Tokens, target: Tokens) -> Tokens:
        """Logits ``(B, T, V)`` of the token after each of ``target``, step by step."""
        state = self.start(source)
        logits = []
        for tokens in _array(target).T:
            row, state = self._advance(tokens, state)
            logits.append(row)
        return _like(source, np.stack(logits, axis=1))

    def start(self, source: Tokens) -> OnnxState:
        """Reads the sources ``(B, S)`` once."""
        tokens = _array(source)
        state = dict(zip(self._read_names, _run(self._reader, {"source": tokens}), strict=True))
        for name, (shape, kind) in self._initial.items():
            # Symbolic axes: sentences, beams (one: each row is a sentence), tokens so far (none).
            sizes = [len(tokens), 1, *(0 if isinstance(size, str) else size for size in shape[2:])]
            state[name] = np.zeros(sizes, dtype=kind)
        # A prompt's caches were repeated for the beams that the latency was measured with.
        return {name: value[:, :1] if value.ndim > 1 else value for name, value in state.items()}

    def step(self, tokens: Tokens, state: OnnxState) -> tuple[Tokens, OnnxState]:
        """Logits ``(B, V)`` of the token after ``tokens`` ``(B,)``, and the state that follows."""
        logits, following = self._advance(_array(tokens), state)
        return _like(tokens, logits), following

    def reorder(self, state: OnnxState, rows: Tokens) -> OnnxState:
        """The state whose rows are ``rows`` ``(B',)`` of this one."""
        index = _array(rows)
        if len(index) == len(state["positions"]) and (index == np.arange(len(index))).all():
            return state
        return {name: value[index] for name, value in state.items()}

    def _advance(self, tokens: Array, state: OnnxState) -> tuple[Array, OnnxState]:
        outputs = _run(self._step, {"tokens": tokens[:, None], **state})
        following = dict(state)
        following.update(
            {fed_input(name): value for name, value in zip(self._step_names[1:], outputs[1:], strict=True)}
        )
        return outputs[0][:, 0], following


def _run(session: Any, inputs: Mapping[str, Array]) -> list[Array]:
    try:
        return cast("list[Array]", session.run(None, dict(inputs)))
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        shapes = {name: value.shape for name, value in inputs.items()}
        raise ExportError(
            f"ONNX Runtime cannot run it: {first_line(error)}",
            field="inputs",
            value=shapes,
            hint="Tokens must be within the vocabulary, and sentences no longer than the model's longest.",
        ) from error


def _array(tokens: Any) -> Array:
    """Tokens as an int64 array."""
    array = tokens if isinstance(tokens, np.ndarray) else tokens.detach().cpu().numpy()
    return np.ascontiguousarray(array, dtype=np.int64)


def _like(example: Tokens, array: Array) -> Tokens:
    """``array`` as the kind of thing that ``example`` is."""
    if isinstance(example, np.ndarray):
        return cast(Tokens, array)
    import torch

    return cast(Tokens, torch.from_numpy(np.ascontiguousarray(array)).to(cast(torch.Tensor, example).device))
