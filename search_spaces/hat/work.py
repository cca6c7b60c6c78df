"""What the parts of a transformer do: parameters, multiply-accumulates, elements, for given lengths.

All quantities are arrays over combinations of choices, so that tables are made at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..workload import Workload
from .specs import Vocabulary

FloatArray: TypeAlias = npt.NDArray[np.float64]
Sums: TypeAlias = dict[str, FloatArray]

FEATURES = {
    "read_layers": "encoder layers",
    "read_width_macs": "multiply-accumulates of the encoder's projections",
    "read_ffn_macs": "multiply-accumulates of the encoder's feed-forwards",
    "read_ffn_elements": "elements within the encoder's feed-forwards",
    "read_score_elements": "elements of the encoder's attention scores",
    "source_macs": "multiply-accumulates of the source's keys and values for all decoder layers",
    "step_layers": "decoder layers, times steps",
    "step_width_macs": "multiply-accumulates of the decoder's projections",
    "step_ffn_macs": "multiply-accumulates of the decoder's feed-forwards",
    "step_ffn_elements": "elements within the decoder's feed-forwards",
    "step_self_elements": "elements of the decoder's attention scores to itself",
    "step_cross_elements": "elements of the decoder's attention scores to the source",
    "step_cross_macs": "multiply-accumulates of the decoder's attention to the source",
    "step_self_heads": "heads of the decoder's attention to itself, times steps",
    "step_cross_heads": "heads of the decoder's attention to the source, times steps",
    "step_output_macs": "multiply-accumulates of the output layer",
    "table_elements": "weights of embeddings and output layer",
}
"""Columns of ``encode``, where they vary."""

SUMS = (*FEATURES, "parameters", "macs", "cio", "caches")
"""What is counted for every entry of a table."""


@dataclass(frozen=True)
class Lengths:
    """Tokens that are read, steps, and beams in each step."""

    source: float
    generated: float
    beams: float

    @classmethod
    def of(cls, workload: Workload) -> Lengths:
        return cls(float(workload.source_length or 0), float(workload.generated_length or 0), float(workload.beam))

    def seen(self, prompt: bool) -> float:
        """Tokens that the steps of one beam see, themselves included, summed over steps."""
        before = self.source if prompt else 0.0
        return self.generated * before + self.generated * (self.generated + 1) / 2


@dataclass(frozen=True)
class Work:
    """Sums of the parts of networks; values are choices by decision, a layer's own without its prefix.

    Args:
        qkv: Features of all heads together.
        vocabulary: The tables.
        lengths: How long sentences are.
        has_encoder: Whether decoder layers read an encoder.
    """

    qkv: int
    vocabulary: Vocabulary
    lengths: Lengths
    has_encoder: bool

    def base(self, values: Mapping[str, FloatArray]) -> Sums:
        """What is there whatever the layers are: tables, last norms, the output layer."""
        decoder = values["decoder.width"]
        encoder = values.get("encoder.width", decoder)
        tables = self._tables(encoder, decoder)
        norms = 2 * decoder + (2 * encoder if self.has_encoder else 0)
        rows = self.lengths.generated * self.lengths.beams
        output = rows * decoder * self.vocabulary.target
        return {
            "parameters": tables + norms,
            "table_elements": tables,
            "step_output_macs": output,
            "macs": output,
            "cio": rows * (decoder + self.vocabulary.target),
        }

    def encoder_layer(self, values: Mapping[str, FloatArray]) -> Sums:
        """One encoder layer on the whole source."""
        width, ffn, heads = values["encoder.width"], values["ffn"], values["heads"]
        return _added(self._self_attention(width), _ffn(width, ffn), self._reading(width, ffn, heads))

    def decoder_layer(self, values: Mapping[str, FloatArray]) -> Sums:
        """One decoder layer in all steps of all beams, and what it makes of the source."""
        width, ffn, heads = values["decoder.width"], values["ffn"], values["self_heads"]
        parts = [self._self_attention(width), _ffn(width, ffn), self._stepping(width, ffn, heads)]
        if self.has_encoder:
            parts.append(self._crossing(width, values["encoder.width"], values["cross_heads"], values["attended"]))
        else:
            reading = self._reading(width, ffn, heads)
            parts.append({name: reading[name] for name in ("macs", "cio")})
        return _added(*parts)

    def _tables(self, encoder: FloatArray, decoder: FloatArray) -> FloatArray:
        vocabulary = self.vocabulary
        if vocabulary.sharing == "all":
            return vocabulary.target * np.maximum(encoder, decoder)
        copies = 2 if vocabulary.sharing == "none" else 1
        return vocabulary.source * encoder + copies * vocabulary.target * decoder

    def _self_attention(self, width: FloatArray) -> Sums:
        return {"parameters": 2 * width + (width + 1) * 3 * self.qkv + (self.qkv + 1) * width}

    def _reading(self, width: FloatArray, ffn: FloatArray, heads: FloatArray) -> Sums:
        length, qkv = self.lengths.source, self.qkv
        scores = heads * length**2
        projections, inner = length * width * 4 * qkv, 2 * length * width * ffn
        return {
            "read_layers": np.ones_like(width),
            "read_width_macs": projections,
            "read_ffn_macs": inner,
            "read_ffn_elements": length * ffn,
            "read_score_elements": scores,
            "macs": projections + inner + 2 * qkv * length**2,
            "cio": length * (4 * width + 8 * qkv + 2 * ffn) + 2 * scores,
        }

    def _stepping(self, width: FloatArray, ffn: FloatArray, heads: FloatArray) -> Sums:
        qkv, beams = self.qkv, self.lengths.beams
        rows = self.lengths.generated * beams
        seen = beams * self.lengths.seen(prompt=not self.has_encoder)
        projections, inner = rows * width * 4 * qkv, 2 * rows * width * ffn
        last = self.lengths.generated + (0 if self.has_encoder else self.lengths.source)
        return {
            "step_layers": np.full_like(width, self.lengths.generated),
            "step_width_macs": projections,
            "step_ffn_macs": inner,
            "step_ffn_elements": rows * ffn,
            "step_self_elements": seen * heads,
            "step_self_heads": self.lengths.generated * heads,
            "macs": projections + inner + 2 * qkv * seen,
            "cio": rows * (4 * width + 6 * qkv + 2 * ffn) + 2 * qkv * seen + 2 * seen * heads,
            "caches": np.full_like(width, 2 * qkv * last * beams),
        }

    def _crossing(self, width: FloatArray, memory_width: FloatArray, heads: FloatArray, attended: FloatArray) -> Sums:
        """Attention to the source: its keys and values once, queries and mixing in every step."""
        qkv, beams = self.qkv, self.lengths.beams
        rows = self.lengths.generated * beams
        length = attended * self.lengths.source
        making, projections = length * memory_width * 2 * qkv, rows * width * 2 * qkv
        return {
            "parameters": 2 * width + (width + 1) * qkv + (memory_width + 1) * 2 * qkv + (qkv + 1) * width,
            "source_macs": making,
            "step_width_macs": projections,
            "step_cross_elements": rows * length * heads,
            "step_cross_macs": 2 * qkv * rows * length,
            "step_cross_heads": self.lengths.generated * heads,
            "macs": making + projections + 2 * qkv * rows * length,
            "cio": length * (memory_width + 2 * qkv)
            + rows * (2 * width + 4 * qkv)
            + self.lengths.generated * 2 * qkv * length
            + 2 * rows * length * heads,
            "caches": 2 * qkv * length,
        }


def _ffn(width: FloatArray, ffn: FloatArray) -> Sums:
    return {"parameters": 2 * width + (width + 1) * ffn + (ffn + 1) * width}


def _added(*parts: Sums) -> Sums:
    total: Sums = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, np.zeros_like(value)) + value
    return total
