"""Write target sequences with an exported model: translations, pronunciations.

gnomon translate from=runs/STUDY/models/ID "Open the file" "Are you sure?"    each argument is a sentence
gnomon translate from=runs/STUDY/models/ID beam=1 < sentences.txt             each line is one
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options

CONFIG = "translate"
TAKES_TEXTS = True
TOGETHER = 64
"""Lines of a file that are translated at a time."""

Translate = Callable[[list[str]], list[str]]


def run(config: DictConfig, options: Options) -> int:
    """Prints a line for each sentence, or with ``--json`` a list of sources and targets."""
    translate = _translator(config)
    done = [
        (source, target) for chunk in _chunks(options.texts) for source, target in _shown(chunk, translate, options)
    ]
    if options.json:
        print(json.dumps([{"source": source, "target": target} for source, target in done], ensure_ascii=False))
    return 0


def _translator(config: DictConfig) -> Translate:
    from ..errors import ConfigError
    from ..tasks.language.text_tokenizer import TextTokenizer
    from ..tasks.sequences.onnx_model import OnnxSequenceToSequence
    from ..tasks.sequences.translator import Translator

    if config["from"] is None:
        raise ConfigError("which model?", field="from", value=None, allowed="the folder of an exported model")
    folder = Path(config["from"])
    if (folder / TextTokenizer.FILE).is_file():
        raise ConfigError(
            "holds a language model, which only writes on", field="from", value=str(folder), hint="Use gnomon generate."
        )
    for name in ("beam", "threads", "max_tokens"):
        value = config[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (value is None and name == "max_tokens") and not (whole and value >= 1):
            raise ConfigError("out of range", field=name, value=value, allowed="an integer from 1")
    penalty = config.length_penalty
    if not isinstance(penalty, int | float) or isinstance(penalty, bool):
        raise ConfigError("not a number", field="length_penalty", value=penalty, allowed="0 or more")
    translator = Translator.of_folder(folder, OnnxSequenceToSequence(folder, config.threads))
    return lambda texts: translator.translate(
        texts, beam=config.beam, length_penalty=config.length_penalty, max_tokens=config.max_tokens
    )


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """The given sentences, or those on standard input: a person's line by line, a file's many at a time."""
    if texts:
        yield list(texts)
        return
    together = 1 if sys.stdin.isatty() else TOGETHER
    chunk: list[str] = []
    for line in sys.stdin:
        chunk.append(line.rstrip("\n"))
        if len(chunk) == together:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _shown(sources: list[str], translate: Translate, options: Options) -> list[tuple[str, str]]:
    targets = translate(sources)
    if not options.json:
        print("\n".join(targets), flush=True)
    return list(zip(sources, targets, strict=True))
