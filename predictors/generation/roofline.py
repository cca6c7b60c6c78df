"""Roofline-type cost of generation: what is computed, and what is moved at so many operations a number.

Kinetics (2506.05333): eFLOPs = compute + memory x E, with E the device's operations in the time in which it moves one
number (562.5 FLOPs for a bf16 number on an accelerator of the B200 kind).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PredictorError
from ...search_spaces.hybrid_slm.sizes import Work
from ...search_spaces.hybrid_slm.specs import LanguageModelSpec
from .work import Phase, model_work

KINETICS_INTENSITY = 562.5 / 2
"""MACs a number, of Kinetics' accelerator: its figure is in FLOPs."""
CPU_INTENSITY = 16.0
"""MACs that one core computes in the time in which it streams one 32-bit number from memory: of the order of 50 GMAC/s
(AVX2, AVX-512) against 10 to 15 GB/s. A prior: :class:`RooflinePredictor` can find a device's own."""


@dataclass(frozen=True)
class Roofline:
    """Cost in equivalent multiply-accumulates.

    Kinetics counts keys and values as what is moved and leaves weights out, which a large batch shares. A small batch
    does not: here they count, unless ``weights`` is False.

    Args:
        intensity: Multiply-accumulates that cost as much as moving one number.
        weights: Whether reading the weights counts.
        batch: Sequences that share the weights of a step.
    """

    intensity: float = CPU_INTENSITY
    weights: bool = True
    batch: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.intensity < float("inf"):
            raise PredictorError("not an intensity", field="intensity", value=self.intensity, allowed=">= 0")
        if self.batch < 1:
            raise PredictorError("not a batch", field="batch", value=self.batch, allowed="1 or more")

    def computed(self, work: Work) -> float:
        """Multiply-accumulates of the batch."""
        return float(self.batch * work.macs)

    def moved(self, work: Work) -> float:
        """Numbers moved: states of each sequence, weights once."""
        return float(self.batch * work.state_traffic + (work.parameters if self.weights else 0.0))

    def emacs(self, work: Work) -> float:
        """Equivalent multiply-accumulates: ``compute + intensity x memory``."""
        return self.computed(work) + self.intensity * self.moved(work)

    def of_model(self, spec: LanguageModelSpec, phase: Phase, length: int) -> float:
        """Of a prefill of ``length`` tokens, or of the step after as many."""
        return self.emacs(model_work(spec, phase, length))
