"""The two tokenizers of a task, and the file in which they go with a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from ...errors import SchemaError
from ...schema import SCHEMA_KEY, check_schema
from .pairs import PairData
from .tokenizer import Tokenizer, character_tokenizer, subword_tokenizer, symbol_tokenizer


@dataclass(frozen=True)
class TokenizerPair:
    """What turns sources into ids and ids into targets.

    Args:
        source, target: One and the same tokenizer where the languages share a vocabulary.
        languages: Of source and target.
        unit: Of symbols in targets; empty for text (see :class:`PairData`).
        max_tokens: Longest sequence, ``END`` included.
    """

    SCHEMA: ClassVar[str] = "gnomon.tokenizers/1"
    FILE: ClassVar[str] = "tokenizers.json"

    source: Tokenizer
    target: Tokenizer
    languages: tuple[str, str]
    unit: str
    max_tokens: int

    @property
    def shared(self) -> bool:
        """Whether source and target have one vocabulary."""
        return self.source is self.target

    @classmethod
    def trained(
        cls, data: PairData, train: Sequence[int], *, vocabulary_size: int, shared: bool, max_tokens: int
    ) -> TokenizerPair:
        """Made from the train split only.

        Args:
            data: All pairs.
            train: Which are of the train split.
            vocabulary_size: Of each sub-word vocabulary; characters and symbols have as many as occur.
            shared: One vocabulary of sub-words for both languages, so that names and placeholders are the
                same token on both sides.
            max_tokens: Longest sequence.
        """
        sources, targets = [data.sources[i] for i in train], [data.targets[i] for i in train]
        if data.unit:
            source, target = character_tokenizer(sources), symbol_tokenizer(targets)
        elif shared:
            source = target = subword_tokenizer([*sources, *targets], vocabulary_size)
        else:
            source, target = (subword_tokenizer(texts, vocabulary_size) for texts in (sources, targets))
        return cls(source, target, data.languages, data.unit, max_tokens)

    def cut(self, ids: list[int]) -> list[int]:
        """The sequence within ``max_tokens``: what is longer loses tokens before its ``END``."""
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of sources, each within ``max_tokens``."""
        return [self.cut(ids) for ids in self.source.encode(texts)]

    def to_text(self) -> str:
        """The file's content."""
        data = {
            SCHEMA_KEY: self.SCHEMA,
            "languages": list(self.languages),
            "unit": self.unit,
            "max_tokens": self.max_tokens,
            "source": self.source.to_json(),
            "target": None if self.shared else self.target.to_json(),
        }
        return json.dumps(data, ensure_ascii=False, sort_keys=True)

    def digest(self) -> str:
        """Of the file's content: equal exactly if the tokenizers are."""
        return sha256(self.to_text().encode()).hexdigest()[:16]

    @classmethod
    def of_folder(cls, folder: Path | str) -> TokenizerPair:
        """The tokenizers in a model's folder.

        Raises:
            SchemaError: If there are none, or the file is damaged or of another schema.
        """
        path = Path(folder) / cls.FILE
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise SchemaError(f"cannot read {path}: {error}") from error
        if not isinstance(data, dict):
            raise SchemaError(f"cannot read {path}: it does not hold a JSON object")
        check_schema(data, cls.SCHEMA, source=path)
        try:
            source = Tokenizer.from_json(data["source"])
            target = source if data["target"] is None else Tokenizer.from_json(data["target"])
            first, second = data["languages"]
            return cls(source, target, (str(first), str(second)), str(data["unit"]), int(data["max_tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"cannot read {path}: {type(error).__name__} {error}") from error
