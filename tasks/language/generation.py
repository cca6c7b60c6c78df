"""Writes on with an exported language model: the prompt at once, then token by token, with what each took.

Shapes: V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from ...search_spaces.sequence import END
from .onnx_model import OnnxLanguageModel

MS_PER_NS = 1e-6


@dataclass
class GenerationTimes:
    """What a generation took, filled in while it runs.

    Args:
        prompt_tokens: Tokens read at once.
        time_to_first_token_ms: Of reading them, the choice of the first token included.
        step_ms: Of each token after the first.
    """

    prompt_tokens: int = 0
    time_to_first_token_ms: float = 0.0
    step_ms: list[float] = field(default_factory=list)

    @property
    def ms_per_token(self) -> float | None:
        """Median over the tokens after the first; None if there are none."""
        return float(np.median(self.step_ms)) if self.step_ms else None


class Generator:
    """An exported model and how its tokens are chosen.

    Args:
        model: The two files.
        temperature: 0 takes the likeliest token, 1 draws from the model's distribution; larger is flatter.
        seed: Of the draws.

    Raises:
        ConfigError: If the temperature is negative.
    """

    def __init__(self, model: OnnxLanguageModel, temperature: float = 0.0, seed: int = 0) -> None:
        if not temperature >= 0:
            raise ConfigError("not a temperature", field="temperature", value=temperature, allowed="0 or more")
        self._model, self._temperature = model, temperature
        self._rng = np.random.default_rng(seed)

    def generate(
        self, prompt: Sequence[int], tokens: int, times: GenerationTimes | None = None, end: int | None = END
    ) -> Iterator[int]:
        """Token ids after a prompt, each as soon as it is known.

        Args:
            prompt: At least one token.
            tokens: How many at most.
            times: Filled in.
            end: The token at which to stop, itself not given; None to go on.

        Raises:
            ConfigError: If the prompt is empty or has other tokens than the model's, or all are more than the model
                was made for.
        """
        self.check(prompt, tokens)
        times = GenerationTimes() if times is None else times
        times.prompt_tokens = len(prompt)
        start = time.perf_counter_ns()
        logits, state = self._model.start(np.array([prompt], dtype=np.int64))
        token = self._chosen(logits[0])
        times.time_to_first_token_ms = (time.perf_counter_ns() - start) * MS_PER_NS
        for index in range(tokens):
            if token == end:
                return
            yield token
            if index == tokens - 1:
                return
            start = time.perf_counter_ns()
            logits, state = self._model.step(np.array([token], dtype=np.int64), state)
            token = self._chosen(logits[0])
            times.step_ms.append((time.perf_counter_ns() - start) * MS_PER_NS)

    def _chosen(self, logits: npt.NDArray[np.float32]) -> int:
        """One token of ``(V,)``."""
        if self._temperature == 0:
            return int(logits.argmax())
        scaled = (logits - logits.max()).astype(np.float64) / self._temperature
        odds = np.exp(scaled)
        return int(self._rng.choice(len(logits), p=odds / odds.sum()))

    def check(self, prompt: Sequence[int], tokens: int) -> None:
        """Raises ConfigError as :meth:`generate` does, before anything is written."""
        known = self._model.interface
        if not prompt:
            raise ConfigError("the prompt is empty", field="prompt", value=list(prompt), allowed="one token or more")
        if not all(0 <= token < known.vocabulary for token in prompt):
            raise ConfigError(
                "has tokens that the model does not know",
                field="prompt",
                value=list(prompt),
                allowed=f"0 to {known.vocabulary - 1}",
            )
        most = known.max_length - len(prompt)
        if not 1 <= tokens <= most:
            raise ConfigError(
                f"with a prompt of {len(prompt)} tokens, the model has room for {max(most, 0)} more",
                field="tokens",
                value=tokens,
                allowed=f"1 to {most}" if most > 0 else "none: shorten the prompt",
            )
