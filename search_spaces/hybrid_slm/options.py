"""What both spaces of language models let be chosen besides operators, checked. Torch comes with the mixers only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...errors import SpaceError
from ..decision import Choice
from ..hat.sizes import checked_choices, checked_count
from ..workload import Workload
from .sizes import MixerSizes
from .specs import FFN, LanguageModelSpec, Operator

PHASES = ("step", "prefill", "")
FFN_MULTIPLE = 8
"""Widths of feed-forwards are rounded to a multiple of this."""
SPARE_POSITIONS = 4
"""Positions beyond the longest sequence: of a step after it, and of the longer inputs on which exports are checked."""

DEFAULT_VOCABULARY, DEFAULT_LENGTH, MOST_GENERATED = 260, 1024, 64


@dataclass(frozen=True)
class Options:
    """Choices that are not operators, each a tuple; one choice is a constant and no decision.

    Args:
        widths: Of the hidden state.
        head_sizes: Features of a head; each divides each width, and there are as many heads as fit.
        kv_heads: Heads of keys and values, where mixers share them.
        windows: Tokens that local mixers see.
        ffn_ratios: Width of feed-forwards over that of the hidden state.
        tied: Whether the output layer is the embedding.
        meta_tokens: Learnt vectors before every sequence.
        exit_after: Operators before the early exit, 0 for none.
        skips: Whether routers may skip operators.
    """

    widths: tuple[int, ...]
    head_sizes: tuple[int, ...]
    kv_heads: tuple[int, ...]
    windows: tuple[int, ...]
    ffn_ratios: tuple[float, ...]
    tied: tuple[bool, ...]
    meta_tokens: tuple[int, ...]
    exit_after: tuple[int, ...]
    skips: tuple[bool, ...]

    def choices(self) -> dict[str, tuple[Choice, ...]]:
        """By name of the decision, in order."""
        return {DECISIONS[field.name]: getattr(self, field.name) for field in fields(self)}


DECISIONS: Mapping[str, str] = {
    "widths": "width",
    "head_sizes": "head_size",
    "kv_heads": "kv_heads",
    "windows": "window",
    "ffn_ratios": "ffn_ratio",
    "tied": "tied",
    "meta_tokens": "meta_tokens",
    "exit_after": "exit_after",
    "skips": "skips",
}
"""Decision of each argument."""


def checked_options(arguments: Mapping[str, Any]) -> Options:
    """The options among a space's arguments.

    Raises:
        SpaceError: If some are no choices, or heads do not fit widths.
    """
    options = Options(
        checked_choices("widths", arguments["widths"]),
        checked_choices("head_sizes", arguments["head_sizes"]),
        checked_choices("kv_heads", arguments["kv_heads"]),
        checked_choices("windows", arguments["windows"]),
        _ratios(arguments["ffn_ratios"]),
        _flags("tied", arguments["tied"]),
        _counts("meta_tokens", arguments["meta_tokens"]),
        _counts("exit_after", arguments["exit_after"]),
        _flags("skips", arguments["skips"]),
    )
    for width in options.widths:
        for size in options.head_sizes:
            if width % size:
                raise SpaceError("does not divide every width", field="head_sizes", value=size, allowed=options.widths)
            if (width // size) % options.kv_heads[0]:
                raise SpaceError(
                    "the fewest do not divide the heads of every network",
                    field="kv_heads",
                    value=options.kv_heads[0],
                    allowed=f"a divisor of {width // size}, for example 1",
                )
    return options


def checked_mixers(value: Any) -> tuple[str, ...]:
    """Kinds of mixers.

    Raises:
        SpaceError: If there are none, some repeat, or some do not exist.
    """
    kinds = _tuple(value)
    if not kinds or len(set(kinds)) != len(kinds) or not all(isinstance(kind, str) for kind in kinds):
        raise SpaceError("not kinds of mixers", field="mixers", value=value, allowed="different names, at least one")
    from .mixers import mixer_class

    for kind in kinds:
        mixer_class(kind)
    return kinds


def checked_workload(arguments: Mapping[str, Any], max_length: int) -> Workload:
    """What latency is measured at.

    Raises:
        SpaceError: If a length is none, or longer than sequences may be.
    """
    context = checked_count("context", _given(arguments["context"], max_length))
    prompt = checked_count(
        "prompt_length", _given(arguments["prompt_length"], max(1, min(context, max_length - 1) // 2))
    )
    generated = _given(arguments["generated_length"], max(1, min(MOST_GENERATED, max_length - prompt)))
    workload = Workload(
        (prompt,),
        batch=checked_count("batch", arguments["batch"]),
        source_length=prompt,
        context=context,
        generated_length=checked_count("generated_length", generated),
        phase=arguments["phase"],
    )
    check_fits(workload, max_length)
    return workload


def check_fits(workload: Workload, max_length: int) -> None:
    """Raises SpaceError if sequences of this workload are longer than a model's, or its phase is none."""
    if workload.phase not in PHASES:
        raise SpaceError(
            "no such phase", field="phase", value=workload.phase, allowed="step, prefill, or empty for all"
        )
    needed = {
        "context": workload.context if workload.phase == "step" else 1,
        "prompt_length": workload.source_length if workload.phase != "step" else 1,
        "generated_length": (workload.source_length or 0) + (workload.generated_length or 0)
        if not workload.phase
        else 1,
    }
    for field, length in needed.items():
        if length is None or not 1 <= length <= max_length:
            raise SpaceError("longer than sequences may be", field=field, value=length, allowed=f"1 to {max_length}")


def model_spec(
    choices: Mapping[str, Any], layers: Iterable[tuple[str, int, Mapping[str, Any]]], vocabulary: int, max_length: int
) -> LanguageModelSpec:
    """The network of choices.

    Args:
        choices: Of every option, by decision.
        layers: Kind of each mixer, number of feed-forwards after it, and options of its own.
        vocabulary, max_length: Of all networks of the space.
    """
    operators: list[Operator] = []
    for kind, ffns, own in layers:
        of = {**choices, **own}
        width, heads = of["width"], of["width"] // of["head_size"]
        length = max_length + of["meta_tokens"] + SPARE_POSITIONS
        sizes = MixerSizes(width, heads, of["kv_heads"], of["head_size"], of["window"], length)
        operators += [Operator(kind, sizes), *[Operator(FFN, sizes, ffn_width(width, of["ffn_ratio"]))] * ffns]
    return LanguageModelSpec(
        vocabulary,
        choices["width"],
        tuple(operators),
        choices["tied"],
        choices["meta_tokens"],
        max_length,
        choices["exit_after"],
        choices["skips"],
    )


def ffn_width(width: int, ratio: float) -> int:
    """Of a feed-forward."""
    return max(1, round(width * ratio / FFN_MULTIPLE)) * FFN_MULTIPLE


def _given(value: Any, default: int) -> Any:
    return default if value is None else value


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()


def _ratios(value: Any) -> tuple[float, ...]:
    ratios = _tuple(value)
    valid = all(isinstance(ratio, int | float) and not isinstance(ratio, bool) and ratio > 0 for ratio in ratios)
    if not ratios or not valid or list(ratios) != sorted(set(ratios)):
        raise SpaceError("not choices", field="ffn_ratios", value=value, allowed="ascending numbers above 0")
    return tuple(float(ratio) for ratio in ratios)


def _flags(field: str, value: Any) -> tuple[bool, ...]:
    flags = _tuple(value)
    if not flags or len(set(flags)) != len(flags) or not all(isinstance(flag, bool) for flag in flags):
        raise SpaceError("not choices", field=field, value=value, allowed="true, false or both")
    return flags


def _counts(field: str, value: Any) -> tuple[int, ...]:
    """Ascending integers from 0."""
    counts = _tuple(value)
    valid = all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)
    if not counts or not valid or list(counts) != sorted(set(counts)):
        raise SpaceError("not choices", field=field, value=value, allowed="ascending integers from 0")
    return counts
