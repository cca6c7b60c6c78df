"""Which pairs of sentences are worth learning from."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ConfigError


def check_word_limits(min_words: int, max_words: int | None) -> None:
    """Refuses limits that no sentence can meet.

    Raises:
        ConfigError: With the limit at fault.
    """
    if min_words < 1:
        raise ConfigError("out of range", field="task.data.min_words", value=min_words, allowed="from 1")
    if max_words is not None and max_words < min_words:
        raise ConfigError(
            "out of range", field="task.data.max_words", value=max_words, allowed=f"from min_words={min_words}, or null"
        )


def kept_pairs(
    pairs: Iterable[tuple[str, str]], min_words: int, max_words: int | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sources and targets with single spaces between words, in their order, without pairs whose

    - source or target is empty, or target is a copy of the source (names, untranslated entries);
    - source or target has more than ``max_words`` words, or source has fewer than ``min_words``.

    Placeholders such as ``%(name)s`` or ``{count}`` are words like others: a translation keeps them.
    """
    sources, targets = [], []
    for source, target in pairs:
        source_words, target_words = source.split(), target.split()
        longest = max(len(source_words), len(target_words))
        if len(source_words) < min_words or not target_words or (max_words is not None and longest > max_words):
            continue
        source, target = " ".join(source_words), " ".join(target_words)
        if source != target:
            sources.append(source)
            targets.append(target)
    return tuple(sources), tuple(targets)
