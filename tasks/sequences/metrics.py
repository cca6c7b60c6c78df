"""How good written sequences are, over a whole split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import DependencyError


def text_metrics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU and chrF through SacreBLEU, both from 0 to 1 (papers print 100 times that).

    BLEU with SacreBLEU's own tokenizer 13a, upper and lower case apart, exponential smoothing; chrF2
    without words. SacreBLEU's signature of that: ``case:mixed|eff:no|tok:13a|smooth:exp``.

    Args:
        hypotheses: One a sentence.
        references: The right translations of each sentence, at least one.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise DependencyError(
            "translations are scored through the package sacrebleu, which is not installed",
            hint="Run: pip install 'gnomon-nas[sequences]'",
        ) from error
    most = max(len(known) for known in references)
    # By number of the reference; sentences that have fewer hold None there.
    streams: Any = [[known[i] if i < len(known) else None for known in references] for i in range(most)]
    return {
        "bleu": BLEU().corpus_score(list(hypotheses), streams).score / 100,
        "chrf": CHRF().corpus_score(list(hypotheses), streams).score / 100,
    }


def symbol_metrics(hypotheses: Sequence[str], references: Sequence[Sequence[str]], unit: str) -> dict[str, float]:
    """Error rate of symbols, its complement, and the share of sequences without an error.

    The error rate is the number of symbols that have to be inserted, deleted or changed, by the number of
    symbols in the reference; where there are several references, the one with the fewest errors (of those,
    the longest) counts. It may exceed 1.

    Args:
        hypotheses: Symbols with spaces between, one a sequence.
        references: The right ones of each sequence, at least one.
        unit: Name of a symbol; the figures are called after it.
    """
    errors = symbols = right = 0
    for hypothesis, known in zip(hypotheses, references, strict=True):
        written = hypothesis.split()
        distances = [(edit_distance(written, reference.split()), -len(reference.split())) for reference in known]
        distance, length = min(distances)
        errors, symbols, right = errors + distance, symbols - length, right + (distance == 0)
    rate = errors / max(1, symbols)
    return {f"{unit}_accuracy": 1 - rate, f"{unit}_error_rate": rate, "exact": right / len(hypotheses)}


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Fewest insertions, deletions and changes that turn one sequence into the other (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, symbol in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (symbol != other))
    return row[-1]
