"""Write on with an exported language model, as it runs on a device.

gnomon generate from=runs/STUDY/models/ID "def main(" tokens=128         the likeliest text
gnomon generate from=runs/STUDY/models/ID "def main(" temperature=0.8    drawn; another seed, another text
gnomon generate from=runs/STUDY/models/ID < prompt.txt --json            text and times as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options
    from ..tasks.language.generation import GenerationTimes, Generator
    from ..tasks.language.text_tokenizer import TextTokenizer

CONFIG = "generate"
TAKES_TEXTS = True
BROKEN = "\ufffd"


def run(config: DictConfig, options: Options) -> int:
    """Prints each prompt's continuation as it is written, and what a token took."""
    from ..search_spaces.sequence import BEGIN
    from ..tasks.language.generation import GenerationTimes

    generator, tokenizer = _loaded(config)
    results = []
    for prompt in options.texts or (sys.stdin.read(),):
        ids, times = [BEGIN, *tokenizer.encode(prompt)], GenerationTimes()
        generator.check(ids, config.tokens)
        show = _silent if options.json else _print
        show(prompt)
        text = _decoded(generator.generate(ids, config.tokens, times), tokenizer, show)
        results.append({"prompt": prompt, "text": text, **_figures(times)})
        if not options.json:
            print(f"\n{_line(times)}", flush=True)
    if options.json:
        print(json.dumps(results, ensure_ascii=False))
    return 0


def _loaded(config: DictConfig) -> tuple[Generator, TextTokenizer]:
    """The model and the tokenizer of a folder."""
    from ..errors import ConfigError
    from ..tasks.language.generation import Generator
    from ..tasks.language.onnx_model import OnnxLanguageModel
    from ..tasks.language.text_tokenizer import TextTokenizer
    from ..tasks.sequences.tokenizer_pair import TokenizerPair

    if config["from"] is None:
        raise ConfigError("which model?", field="from", value=None, allowed="the folder of an exported model")
    for name, least in (("tokens", 1), ("threads", 1), ("seed", 0)):
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError("out of range", field=name, value=value, allowed=f"an integer from {least}")
    temperature = config.temperature
    if not isinstance(temperature, int | float) or isinstance(temperature, bool):
        raise ConfigError("not a temperature", field="temperature", value=temperature, allowed="0 or more")
    folder = Path(config["from"])
    if (folder / TokenizerPair.FILE).is_file():
        raise ConfigError(
            "holds a model that writes for a given text", field="from", value=str(folder), hint="Use gnomon translate."
        )
    model = OnnxLanguageModel(folder, config.threads)
    return Generator(model, float(temperature), config.seed), TextTokenizer.of_folder(folder)


def _decoded(tokens: Iterable[int], tokenizer: TextTokenizer, show: Callable[[str], None]) -> str:
    """The text of tokens; ``show`` is given each part of it as soon as its characters are complete."""
    ids: list[int] = []
    text = ""
    for token in tokens:
        ids.append(token)
        written = tokenizer.decode(ids)
        if not written.endswith(BROKEN):  # else a character whose last bytes are still to come
            show(written[len(text) :])
            text = written
    written = tokenizer.decode(ids)
    show(written[len(text) :])
    return written


def _figures(times: GenerationTimes) -> dict[str, Any]:
    return {
        "prompt_tokens": times.prompt_tokens,
        "time_to_first_token_ms": times.time_to_first_token_ms,
        "ms_per_token": times.ms_per_token,
        "steps": len(times.step_ms),
    }


def _line(times: GenerationTimes) -> str:
    first = f"{times.prompt_tokens} tokens read in {times.time_to_first_token_ms:.1f} ms"
    return first if times.ms_per_token is None else f"{first}; {times.ms_per_token:.2f} ms a token"


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _silent(text: str) -> None:
    """Nothing is printed until all is JSON."""
