"""How a model's sentences are written: greedily, or by beam search.

Shapes: B sentences, S source tokens, K beams of a sentence, T generated tokens, V target vocabulary. Rows of
a state are ordered sentence by sentence: beam k of sentence b is row ``b * K + k``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ...errors import ConfigError
from ...search_spaces.sequence import BEGIN, END, PAD, DecodingState

if TYPE_CHECKING:
    import torch

NEVER = (PAD, BEGIN)
"""Tokens that no sentence holds."""


class Writer(Protocol):
    """The part of :class:`SequenceToSequence` that decoding needs; exported models have it, too."""

    def start(self, source: torch.Tensor) -> DecodingState:
        """Reads the sources ``(B, S)`` once."""

    def step(self, tokens: torch.Tensor, state: DecodingState) -> tuple[torch.Tensor, DecodingState]:
        """Logits ``(B, V)`` of the token after ``tokens`` ``(B,)``, and the state that follows."""

    def reorder(self, state: DecodingState, rows: torch.Tensor) -> DecodingState:
        """The state whose rows are ``rows`` of this one."""


def decode(
    model: Writer, source: torch.Tensor, max_tokens: int, *, beam: int = 1, length_penalty: float = 1.0
) -> list[list[int]]:
    """The sentences that the model writes for ``source`` ``(B, S)``, with ``END`` where one was written.

    Args:
        model: In evaluation mode; call it under ``torch.no_grad``.
        source: Ended by ``END`` and filled up with ``PAD``.
        max_tokens: Longest sentence, ``END`` included.
        beam: Sentences that are kept while writing; 1 for greedy.
        length_penalty: Of :func:`beam_search`.

    Raises:
        ConfigError: If a setting is out of range.
    """
    if max_tokens < 1:
        raise ConfigError("out of range", field="max_tokens", value=max_tokens, allowed="from 1")
    if beam < 1:
        raise ConfigError("out of range", field="beam", value=beam, allowed="from 1")
    if beam == 1:
        return greedy(model, source, max_tokens)
    return beam_search(model, source, max_tokens, beam, length_penalty)


def greedy(model: Writer, source: torch.Tensor, max_tokens: int) -> list[list[int]]:
    """Always the likeliest token."""
    import torch

    state = model.start(source)
    tokens = torch.full((len(source),), BEGIN, dtype=torch.int64, device=source.device)
    finished = torch.zeros_like(tokens, dtype=torch.bool)
    written = []
    for _ in range(max_tokens):
        logits, state = model.step(tokens, state)
        tokens = _allowed(logits).argmax(dim=1).masked_fill(finished, PAD)
        written.append(tokens)
        finished = finished | (tokens == END)
        if bool(finished.all()):
            break
    return _sentences(torch.stack(written, dim=1))


def beam_search(
    model: Writer, source: torch.Tensor, max_tokens: int, beam: int, length_penalty: float = 1.0
) -> list[list[int]]:
    """The best sentence among those found by keeping ``beam`` unfinished ones at every length.

    The score of a sentence of T tokens is its log-probability divided by ``((5 + T) / 6) ** length_penalty``
    (1609.08144, Equation 14, without coverage): 0 for the plain log-probability, which favours short ones. A
    sentence ends with ``END``, or at ``max_tokens``. A search ends when no unfinished beam can win any more.

    Raises:
        ConfigError: If ``length_penalty`` is negative.
    """
    import torch

    if length_penalty < 0:
        raise ConfigError("out of range", field="length_penalty", value=length_penalty, allowed="from 0")
    search = _BeamSearch(len(source), beam, max_tokens, length_penalty, source.device)
    state = model.reorder(model.start(source), search.first_rows())
    for length in range(1, max_tokens + 1):
        logits, state = model.step(search.last_tokens(), state)
        rows = search.advance(torch.log_softmax(_allowed(logits).float(), dim=1), length)
        if length == max_tokens or search.is_decided(length):
            break
        state = model.reorder(state, rows)
    return _sentences(search.best())


class _BeamSearch:
    """Beams of a batch of sentences: what they hold, their log-probabilities, the best finished ones."""

    def __init__(self, sentences: int, beam: int, max_tokens: int, length_penalty: float, device: torch.device) -> None:
        import torch

        self.beam, self.max_tokens, self.length_penalty = beam, max_tokens, length_penalty
        self._offsets = torch.arange(sentences, device=device)[:, None] * beam
        self._tokens = torch.full((sentences, beam, 1), BEGIN, dtype=torch.int64, device=device)
        # All beams begin alike; only the first counts, so that they do not stay alike.
        self._scores = torch.full((sentences, beam), -torch.inf, device=device)
        self._scores[:, 0] = 0.0
        self._best_scores = torch.full((sentences,), -torch.inf, device=device)
        self._best = torch.full((sentences, max_tokens), PAD, dtype=torch.int64, device=device)

    def first_rows(self) -> torch.Tensor:
        """Each sentence's row once for each of its beams."""
        import torch

        sentences = len(self._offsets)
        return torch.arange(sentences, device=self._offsets.device).repeat_interleave(self.beam)

    def last_tokens(self) -> torch.Tensor:
        """The last token of each row ``(B x K,)``."""
        return self._tokens[:, :, -1].reshape(-1)

    def advance(self, log_probability: torch.Tensor, length: int) -> torch.Tensor:
        """Takes the best next tokens, and gives the rows ``(B x K,)`` which they follow.

        Args:
            log_probability: ``(B x K, V)`` of the next token.
            length: Of the sentences with that token.
        """
        import torch

        sentences, vocabulary = len(self._offsets), log_probability.shape[1]
        scores = self._scores[:, :, None] + log_probability.view(sentences, self.beam, vocabulary)
        # Of twice as many as beams, at most as many end here: enough are left to go on.
        count = min(2 * self.beam, self.beam * vocabulary)
        found, flat = scores.flatten(1).topk(count, dim=1)
        parents, tokens = flat // vocabulary, flat % vocabulary
        candidates = torch.cat([self._taken(self._tokens, parents), tokens[:, :, None]], dim=2)
        ends = tokens == END if length < self.max_tokens else torch.ones_like(tokens, dtype=torch.bool)
        self._keep_best(candidates, found.masked_fill(~ends, -torch.inf) / self._penalty(length))
        self._scores, chosen = found.masked_fill(ends, -torch.inf).topk(self.beam, dim=1)
        self._tokens = self._taken(candidates, chosen)
        return (parents.gather(1, chosen) + self._offsets).reshape(-1)

    def is_decided(self, length: int) -> bool:
        """Whether no unfinished beam of any sentence can still beat the best finished one.

        Log-probabilities only fall. What they are divided by is largest at the full length.
        """
        hopes = self._scores.max(dim=1).values / self._penalty(self.max_tokens)
        return bool((hopes <= self._best_scores).all())

    def best(self) -> torch.Tensor:
        """Tokens of the best finished sentences ``(B, T)``, filled up with ``PAD``."""
        return self._best

    def _penalty(self, length: int) -> float:
        return float(((5 + length) / 6) ** self.length_penalty)

    def _keep_best(self, candidates: torch.Tensor, scores: torch.Tensor) -> None:
        import torch

        score, which = scores.max(dim=1)
        better = score > self._best_scores
        tokens = self._taken(candidates, which[:, None])[:, 0, 1:]  # without BEGIN
        filled = torch.nn.functional.pad(tokens, (0, self.max_tokens - tokens.shape[1]), value=PAD)
        self._best = torch.where(better[:, None], filled, self._best)
        self._best_scores = torch.where(better, score, self._best_scores)

    @staticmethod
    def _taken(tokens: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """``(B, K, T)`` at ``which`` ``(B, K')``."""
        return tokens.gather(1, which[:, :, None].expand(-1, -1, tokens.shape[2]))


def _allowed(logits: torch.Tensor) -> torch.Tensor:
    """Logits ``(B, V)`` without a chance for :data:`NEVER`."""
    import torch

    never = torch.tensor(NEVER, device=logits.device)
    return logits.index_fill(1, never, -torch.inf)


def _sentences(tokens: torch.Tensor) -> list[list[int]]:
    """Rows ``(B, T)`` without what comes after their ``END``."""
    rows: list[list[int]] = tokens.tolist()
    return [row[: row.index(END) + 1] if END in row else [token for token in row if token != PAD] for row in rows]
