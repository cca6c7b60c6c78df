"""A model and its tokenizers: from text to text, without the data that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .decoding import Writer
from .scoring import evaluating, write
from .tokenizer_pair import TokenizerPair


@dataclass(frozen=True)
class Translator:
    """Writes target text for source text.

    Args:
        model: A torch module, or an exported model.
        tokenizers: With which it was trained.
    """

    model: Writer
    tokenizers: TokenizerPair

    @classmethod
    def of_folder(cls, folder: Path | str, model: Writer) -> Self:
        """With the tokenizers in a model's folder.

        Raises:
            SchemaError: If there are none.
        """
        return cls(model, TokenizerPair.of_folder(folder))

    def translate(
        self, texts: Sequence[str], *, beam: int = 1, length_penalty: float = 1.0, max_tokens: int | None = None
    ) -> list[str]:
        """One target for each text; empty text stays empty.

        Args:
            texts: Sources; of one that is too long, the end is not read.
            beam, length_penalty: Of decoding.
            max_tokens: Longest target; None for the longest in training.

        Raises:
            ConfigError: If a setting is out of range.
            TaskError: If the model does not fit its tokenizers.
        """
        import torch

        given = [index for index, text in enumerate(texts) if text.strip()]
        sources = self.tokenizers.encode_sources([texts[index].strip() for index in given])
        longest = self.tokenizers.max_tokens if max_tokens is None else min(max_tokens, self.tokenizers.max_tokens)
        with torch.inference_mode(), evaluating(self.model):
            written = write(self.model, sources, longest, beam=beam, length_penalty=length_penalty)
        results = [""] * len(texts)
        for index, ids in zip(given, written, strict=True):
            results[index] = self.tokenizers.target.decode(ids)
        return results
