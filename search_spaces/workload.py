"""What a model is run on: batch, input shape and, for sequences, the lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..schema import Record


@dataclass(frozen=True)
class Workload(Record):
    """The conditions of one inference, part of a setting's identity.

    Args:
        input_shape: Shape of one example without the batch dimension, for images ``(C, H, W)``.
        batch: Examples in one inference.
        source_length: Tokens that an encoder reads.
        context: Tokens already in the cache when a decode step is timed.
        generated_length: Tokens that a decoder generates.
        beam: Beams in the decoder.
        phase: ``prefill`` or ``step`` where only one part of a plan is meant; empty for the whole.
    """

    SCHEMA: ClassVar[str] = "gnomon.workload/1"

    input_shape: tuple[int, ...]
    batch: int = 1
    source_length: int | None = None
    context: int | None = None
    generated_length: int | None = None
    beam: int = 1
    phase: str = ""
