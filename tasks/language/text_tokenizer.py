"""From text to token ids and back, exactly: bytes, or sub-words of bytes; and the file that goes with a model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import SchemaError
from ...schema import SCHEMA_KEY, check_schema
from ...search_spaces.sequence import SPECIAL_TOKENS
from ..sequences.tokenizer import BYTES, Tokenizer, subword_tokenizer

FIRST = len(SPECIAL_TOKENS)
"""The id of byte 0 where tokens are bytes."""


class TextTokenizer:
    """Text to ids and back without loss; the first ids are those of ``SPECIAL_TOKENS``, which no text becomes.

    Args:
        subwords: None for bytes: byte b is token ``b + FIRST``.
    """

    SCHEMA: ClassVar[str] = "gnomon.text_tokenizer/1"
    FILE: ClassVar[str] = "text_tokenizer.json"

    def __init__(self, subwords: Tokenizer | None = None) -> None:
        self.subwords = subwords

    @classmethod
    def trained(cls, texts: Iterable[str], vocabulary_size: int | None) -> TextTokenizer:
        """Bytes, or byte-pair encoding learned from ``texts``.

        Args:
            texts: Of the train split.
            vocabulary_size: Of sub-words; None for bytes.

        Raises:
            ConfigError: If the vocabulary has no room for the special tokens and 256 bytes.
            DependencyError: If sub-words are asked for without the package tokenizers.
        """
        return cls(None if vocabulary_size is None else subword_tokenizer(texts, vocabulary_size, exact=True))

    @property
    def kind(self) -> str:
        """``bytes`` or ``bpe``."""
        return "bytes" if self.subwords is None else "bpe"

    @property
    def size(self) -> int:
        """Number of tokens, special ones included."""
        return FIRST + BYTES if self.subwords is None else self.subwords.size

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of text of each token ``(size,)``; special ones have none."""
        lengths = np.ones(self.size, dtype=np.int64)
        if self.subwords is not None:
            # Tokens are written in an alphabet of one character a byte.
            lengths[:] = [len(name) for name in self.subwords.tokens]
        lengths[:FIRST] = 0
        return lengths

    def encode(self, text: str) -> list[int]:
        """Token ids, without begin and end."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_array(self, text: str) -> npt.NDArray[np.int64]:
        """The same as an array ``(tokens,)``."""
        if self.subwords is None:
            return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) + FIRST
        return np.array(self.subwords.encode([text])[0][:-1], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first ``END``; other special tokens are left out, broken characters are shown as such."""
        ids = [int(token) for token in ids]
        if self.subwords is not None:
            return self.subwords.decode(ids)
        ends = [i for i, token in enumerate(ids) if token == SPECIAL_TOKENS.index("</s>")]
        kept = ids[: ends[0]] if ends else ids
        return bytes(token - FIRST for token in kept if token >= FIRST).decode("utf-8", errors="replace")

    def to_text(self) -> str:
        """The file's content."""
        tokens = None if self.subwords is None else self.subwords.to_json()
        data = {SCHEMA_KEY: self.SCHEMA, "kind": self.kind, "tokens": tokens}
        return json.dumps(data, ensure_ascii=False, sort_keys=True)

    def digest(self) -> str:
        """Of the file's content: equal exactly if the tokenizers are."""
        return sha256(self.to_text().encode()).hexdigest()[:16]

    @classmethod
    def from_text(cls, text: str, source: Path | str = "a tokenizer") -> TextTokenizer:
        """The tokenizer that :meth:`to_text` wrote.

        Raises:
            SchemaError: If it is none, damaged or of another schema.
        """
        try:
            data: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise SchemaError(f"cannot read {source}: {error}") from error
        if not isinstance(data, dict):
            raise SchemaError(f"cannot read {source}: it does not hold a JSON object")
        check_schema(data, cls.SCHEMA, source=source)
        kind, tokens = data.get("kind"), data.get("tokens")
        if kind not in ("bytes", "bpe") or (kind == "bytes") != (tokens is None):
            raise SchemaError(f"cannot read {source}", field="kind", value=kind, allowed="bytes, or bpe with tokens")
        return cls(None if kind == "bytes" else Tokenizer.from_json(tokens))

    @classmethod
    def of_folder(cls, folder: Path | str) -> TextTokenizer:
        """The tokenizer in a model's folder.

        Raises:
            SchemaError: If there is none, or the file is damaged or of another schema.
        """
        path = Path(folder) / cls.FILE
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(f"cannot read {path}: {error}") from error
        return cls.from_text(text, path)
