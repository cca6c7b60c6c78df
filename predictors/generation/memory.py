"""Memory that a language model takes: weights, what it keeps from token to token, and the peak of a call.

Bytes are of 32-bit floats unless said otherwise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...search_spaces.hybrid_slm.sizes import MixerSizes
from ...search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator
from .work import Phase, checked_phase, operator_work

FLOAT_BYTES = 4


def state_bytes(spec: LanguageModelSpec, context: int, batch: int = 1) -> int:
    """What all mixers keep after ``context`` tokens (meta tokens come on top), in the types of their states."""
    return sum(_state_bytes(operator, context + spec.meta_tokens, batch) for operator in spec.operators)


def state_bytes_per_token(spec: LanguageModelSpec, context: int) -> int:
    """What one token more adds after ``context`` tokens, of one sequence: 0 without growing states."""
    return state_bytes(spec, context + 1) - state_bytes(spec, context)


@lru_cache(maxsize=1024)
def weight_bytes(spec: LanguageModelSpec) -> int:
    """Parameters and constant tables (such as those of rotary positions); a tied embedding once."""
    import torch

    from ...search_spaces.hybrid_slm.model import LanguageModel

    with torch.device("meta"):
        model = LanguageModel(spec)
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_bytes(spec: LanguageModelSpec, phase: Phase, length: int, batch: int = 1) -> int:
    """Estimate of the most that a call holds at once: weights, states, and the widest operator's results.

    A step reads its states and writes new ones beside them, as caches grow by concatenation; a prefill only writes.
    Of an operator that attends, the scores count twice (before and after softmax; of a linear mixer, what stands in
    their place). The runtime's own memory, and what it sets aside for reuse, come on top.

    Args:
        spec: The model.
        phase: ``prefill`` or ``step``.
        length: Tokens of the prefill, or before the step.
        batch: Sequences at once.
    """
    step = checked_phase(phase) == "step"
    tokens = 1 if step else length + spec.meta_tokens
    states = state_bytes(spec, length + 1 if step else length, batch)
    if step:
        states += state_bytes(spec, length, batch)
    widest = max((_held(operator, phase, length + spec.meta_tokens) for operator in spec.operators), default=0.0)
    activations = batch * (2 * tokens * spec.width + max(widest, spec.vocabulary))
    return weight_bytes(spec) + states + int(FLOAT_BYTES * activations)


def _held(operator: Operator, phase: Phase, length: int) -> float:
    """Elements that an operator holds at once for one sequence."""
    tokens = length if phase == "prefill" else 1
    if operator.kind == FFN:
        return 3.0 * tokens * operator.ffn_width
    sizes, work = operator.sizes, operator_work(operator, phase, length)
    # What an operator multiplies beyond its weights are scores, each of them by a head's features twice.
    scores = max(work.macs - tokens * work.parameters, 0.0) / sizes.head_size
    return tokens * 2 * (sizes.inner + sizes.kv_inner) + scores


def _state_bytes(operator: Operator, past: int, batch: int) -> int:
    return 0 if operator.kind == FFN else _mixer_state_bytes(operator.kind, operator.sizes, past, batch)


@lru_cache(maxsize=16384)
def _mixer_state_bytes(kind: str, sizes: MixerSizes, past: int, batch: int) -> int:
    from ...search_spaces.hybrid_slm.mixers import mixer_class

    specs = mixer_class(kind).state_specs(sizes, batch, past)
    return sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs)
