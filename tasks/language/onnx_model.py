"""An exported language model: the graph that reads a prompt, and the graph of one step.

Any two files whose names fit together will do: ``prefill`` takes ``tokens`` (B, T), ``step`` takes ``tokens`` (B,), and
both give ``logits`` (B, V) of the token after the last one; every other output of either, ``next_x``, is the input
``x`` of the step that follows (see :mod:`gnomon.search_spaces.hybrid_slm.interface`).

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import TaskError
from ...search_spaces.hybrid_slm.interface import GenerationInterface
from ..onnx_session import Arrays, opened, run

if TYPE_CHECKING:
    import torch

PREFILL, STEP = "prefill", "step"
TOKENS, LOGITS, NEXT = "tokens", "logits", "next_"
INTERFACE = "gnomon.interface"
"""Metadata key of :class:`~gnomon.search_spaces.hybrid_slm.interface.GenerationInterface`."""


class OnnxLanguageModel:
    """The files ``prefill.onnx`` and ``step.onnx`` of a model's folder, through ONNX Runtime; a
    :class:`~gnomon.tasks.language.scoring.Stepwise` model.

    Args:
        folder: Where both files are.
        threads: Of ONNX Runtime.

    Raises:
        TaskError: If a file is missing or damaged, or they do not fit together.
    """

    def __init__(self, folder: Path | str, threads: int = 1) -> None:
        paths = {name: Path(folder) / f"{name}.onnx" for name in (PREFILL, STEP)}
        if not all(path.is_file() for path in paths.values()):
            raise TaskError(
                "not the folder of a language model",
                field="model",
                value=str(folder),
                allowed="one with prefill.onnx and step.onnx",
            )
        self._prefill, self._step = (opened(path, threads) for path in paths.values())
        taken = {node.name for node in self._step.get_inputs()} - {TOKENS}
        for name, session in ((PREFILL, self._prefill), (STEP, self._step)):
            given = {node.name.removeprefix(NEXT) for node in session.get_outputs()} - {LOGITS}
            if given != taken or TOKENS not in {node.name for node in session.get_inputs()}:
                raise TaskError(
                    f"{paths[name]} and the inputs of a step do not fit together",
                    field="outputs",
                    value=sorted(given ^ taken) or TOKENS,
                    allowed="an output next_x for each input x of the step but tokens",
                )

    def stepped(self, tokens: torch.Tensor, prompt: int) -> Iterator[torch.Tensor]:
        """Reads ``prompt`` tokens of ``tokens`` ``(B, T)`` at once and the rest one by one; yields logits ``(B, V)`` of
        the token after the prompt, and after each token that follows."""
        import torch

        logits, state = self.start(tokens[:, :prompt].cpu().numpy())
        yield torch.from_numpy(logits)
        for column in tokens[:, prompt:].unbind(1):
            logits, state = self.step(column.cpu().numpy(), state)
            yield torch.from_numpy(logits)

    def start(self, tokens: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], Arrays]:
        """Logits ``(B, V)`` of the token after a prompt ``(B, T)``, and what the next step is fed."""
        return self._run(self._prefill, {TOKENS: tokens})

    def step(self, tokens: npt.NDArray[np.int64], state: Arrays) -> tuple[npt.NDArray[np.float32], Arrays]:
        """Logits ``(B, V)`` of the token after ``tokens`` ``(B,)``, and what the next step is fed."""
        return self._run(self._step, {TOKENS: tokens, **state})

    @property
    def interface(self) -> GenerationInterface:
        """What the files say of themselves.

        Raises:
            SchemaError: If they say nothing, or are of another schema.
        """
        text = self._prefill.get_modelmeta().custom_metadata_map.get(INTERFACE, "null")
        return GenerationInterface.from_dict(json.loads(text))

    def _run(self, session: Any, given: Arrays) -> tuple[npt.NDArray[np.float32], Arrays]:
        """Logits, and what the next step is fed besides tokens."""
        names = [node.name for node in session.get_outputs()]
        found = dict(zip(names, run(session, given), strict=True))
        logits = found.pop(LOGITS)
        return logits, {name.removeprefix(NEXT): array for name, array in found.items()}
