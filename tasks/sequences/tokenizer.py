"""From text to token ids and back, through HuggingFace's tokenizers.

That library and not sentencepiece, because a trained tokenizer is a JSON text: it can be read, compared
and put beside a model, and one format serves sub-words, characters and phonemes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DependencyError, SchemaError
from ...search_spaces.sequence import END, SPECIAL_TOKENS, UNKNOWN

if TYPE_CHECKING:
    import tokenizers

BYTES = 256


class Tokenizer:
    """Text to ids, ended by ``END``, and back. The first ids are those of ``SPECIAL_TOKENS``.

    Made by :func:`subword_tokenizer`, :func:`character_tokenizer`, :func:`symbol_tokenizer` or
    :meth:`from_json`.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # `<s>` in a user's text is four characters, not the token that begins a sentence.
        backend.encode_special_tokens = True
        self._backend = backend

    @property
    def size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self._backend.get_vocab_size())

    @property
    def tokens(self) -> tuple[str, ...]:
        """Names of the tokens in the order of their ids."""
        return tuple(str(self._backend.id_to_token(i)) for i in range(self.size))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, each ended by ``END``."""
        with _one_thread():
            return [[*encoding.ids, END] for encoding in self._backend.encode_batch_fast(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first ``END``; special tokens are left out."""
        kept: list[int] = []
        for token in ids:
            if token == END:
                break
            if token >= len(SPECIAL_TOKENS):
                kept.append(int(token))
        return str(self._backend.decode(kept, skip_special_tokens=False))

    def to_json(self) -> dict[str, Any]:
        """As the library writes it."""
        plain: dict[str, Any] = json.loads(self._backend.to_str())
        return plain

    @classmethod
    def from_json(cls, data: Any) -> Tokenizer:
        """The tokenizer that :meth:`to_json` wrote.

        Raises:
            SchemaError: If it is none, or its first tokens are not ``SPECIAL_TOKENS``.
        """
        try:
            made = cls(_library().Tokenizer.from_str(json.dumps(data)))
        except Exception as error:  # the library raises plain Exception
            raise SchemaError(f"cannot read a tokenizer: {error}") from error
        if made.tokens[: len(SPECIAL_TOKENS)] != SPECIAL_TOKENS:
            raise SchemaError(
                "a tokenizer with other special tokens",
                field="tokens",
                value=made.tokens[: len(SPECIAL_TOKENS)],
                allowed=str(SPECIAL_TOKENS),
            )
        return made


def subword_tokenizer(texts: Iterable[str], size: int, *, exact: bool = False) -> Tokenizer:
    """Byte-pair encoding (1508.07909) over bytes, learned from ``texts``: no text is unknown to it.

    Args:
        texts: What it learns from.
        size: Number of tokens, special ones and the 256 bytes included.
        exact: Decoding gives every character back. Otherwise a space is put before the first word, so that it is the
            same token as within a sentence, and characters take Unicode's composed forms.

    Raises:
        ConfigError: If ``size`` has no room for the special tokens and 256 bytes.
    """
    least = len(SPECIAL_TOKENS) + BYTES
    if size < least:
        raise ConfigError("too small", field="task.vocabulary_size", value=size, allowed=f"from {least}")
    library = _library()
    backend = library.Tokenizer(library.models.BPE())
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=not exact)
    if exact:
        backend.decoder = library.decoders.ByteLevel()
    else:
        backend.normalizer = library.normalizers.NFC()
        backend.decoder = library.decoders.Sequence(
            [library.decoders.ByteLevel(), library.decoders.Strip(content=" ", left=1, right=0)]
        )
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with _one_thread():
        backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def character_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """One token for each character in ``texts``; others are unknown. Where no capitals occur, text is read
    in lower case."""
    library = _library()
    characters = {character for text in texts for character in text}
    backend = library.Tokenizer(_symbols(characters))
    if not any(character.isupper() for character in characters):
        backend.normalizer = library.normalizers.Lowercase()
    # Splits before every character, line breaks too.
    backend.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(r"[\s\S]"), "isolated")
    backend.decoder = library.decoders.Fuse()
    return Tokenizer(backend)


def symbol_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """One token for each word in ``texts``, with spaces between in text; others are unknown."""
    library = _library()
    backend = library.Tokenizer(_symbols({word for text in texts for word in text.split()}))
    backend.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend)


def _symbols(symbols: set[str]) -> Any:
    ids = {name: i for i, name in enumerate([*SPECIAL_TOKENS, *sorted(symbols - set(SPECIAL_TOKENS))])}
    return _library().models.WordLevel(ids, unk_token=SPECIAL_TOKENS[UNKNOWN])


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise DependencyError(
            "text becomes tokens through the package tokenizers, which is not installed",
            hint="Run: pip install 'gnomon-nas[sequences]'",
        ) from error
    return tokenizers


@contextmanager
def _one_thread() -> Iterator[None]:
    """The library without its thread pool: sentences are short, and a later fork would warn of threads."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
