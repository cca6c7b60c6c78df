"""What one call of a language model's graph computes and moves, as a sum over its operators.

A *length* is the number of tokens of a prefill, or of tokens before the one of a step; meta tokens are not counted,
as a user does not count them, but are part of the work.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias

from ...errors import PredictorError
from ...search_spaces.hybrid_slm.sizes import Work
from ...search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator

Phase: TypeAlias = Literal["prefill", "step"]
PHASES: tuple[Phase, ...] = ("prefill", "step")


def checked_phase(phase: str) -> Phase:
    """A phase of generation.

    Raises:
        PredictorError: If it is none.
    """
    for known in PHASES:
        if phase == known:
            return known
    raise PredictorError("no such phase", field="phase", value=phase, allowed=PHASES)


@lru_cache(maxsize=16384)
def operator_work(operator: Operator, phase: Phase, length: int) -> Work:
    """Of one operator with its norm, for one sequence; ``length`` with meta tokens."""
    tokens = length if phase == "prefill" else 1
    norm = operator.sizes.width
    if operator.kind == FFN:
        width, ffn_width = operator.sizes.width, operator.ffn_width
        a_token = 3 * width * ffn_width if operator.fan_in is None else (2 * ffn_width + width) * operator.fan_in
        return Work(a_token + norm, tokens * a_token, 0, 0)
    from ...search_spaces.hybrid_slm.mixers import mixer_class

    mixer = mixer_class(operator.kind)
    work = (mixer.prefill_work if phase == "prefill" else mixer.step_work)(operator.sizes, length)
    return Work(work.parameters + norm, work.macs, work.state_elements, work.state_traffic)


def base_work(spec: LanguageModelSpec) -> Work:
    """Of what is left without operators: embedding, last norm, output layer (of one token in both phases)."""
    head = spec.vocabulary * spec.width
    norms = 2 if spec.exit_after else 1
    parameters = head * (1 if spec.tied else 2) + spec.width * (norms + spec.meta_tokens)
    return Work(parameters, head, 0, 0)


def model_work(spec: LanguageModelSpec, phase: Phase, length: int) -> Work:
    """Of a whole model, for one sequence."""
    parts = [operator_work(operator, phase, length + spec.meta_tokens) for operator in spec.operators]
    parts.append(base_work(spec))
    routers = len(spec.operators) * (spec.width + 1) if spec.skips else 0
    return Work(
        parameters=routers + sum(part.parameters for part in parts),
        macs=sum(part.macs for part in parts),
        state_elements=sum(part.state_elements for part in parts),
        state_traffic=sum(part.state_traffic for part in parts),
    )
