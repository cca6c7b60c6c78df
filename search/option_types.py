"""Whether the settings of a config node are what a constructor takes, before it is called.

A constructor says by its annotations what it takes, and checks ranges itself. Were types left to it, ``off`` would be
true, ``3`` no list, and ``abc`` a comparison that fails somewhere inside.
"""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from ..errors import ConfigError

_NAMESPACE = {**vars(typing), **vars(collections.abc), "Path": Path}
"""What annotations may name although their module imports it for type checkers only."""
_LISTS = (Sequence, collections.abc.Iterable, Collection, list, tuple)
_PLAIN = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "null",
}
_PLURAL = {bool: "true or false", int: "integers", float: "numbers", str: "texts", Path: "paths"}


def check_settings(target: Callable[..., Any], settings: Mapping[str, Any], field: str, given: Collection[str]) -> None:
    """Refuses settings that ``target`` does not take, lacks, or takes as another type.

    Nodes with a ``_target_`` are checked by themselves, and what an annotation says that cannot be looked up is left
    to the constructor.

    Args:
        target: A class or function.
        settings: Plain values by name; names with an underscore in front are Hydra's.
        field: Name of the node, for messages.
        given: Names of arguments that the caller adds.

    Raises:
        ConfigError: Naming the setting and what is allowed.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # not every callable of another language says
        return
    own = {name: value for name, value in settings.items() if not name.startswith("_")}
    _check_names(target, parameters, own, field, given)
    if not settings.get("_partial_") and "_args_" not in settings:
        _check_all_there(parameters, own, field, given)
    for name, value in own.items():
        if name in parameters and not _is_node(value):
            _check_type(value, _annotation(target, parameters[name]), f"{field}.{name}")


def _check_names(
    target: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    own: Mapping[str, Any],
    field: str,
    given: Collection[str],
) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name, value in own.items():
        if name not in parameters:
            raise ConfigError(
                f"{getattr(target, '__name__', target)} has no such setting",
                field=f"{field}.{name}",
                value=value,
                allowed=[known for known in parameters if known not in given],
                hint=f"~{field}.{name} leaves one out that an experiment sets.",
            )


def _check_all_there(
    parameters: Mapping[str, inspect.Parameter], own: Mapping[str, Any], field: str, given: Collection[str]
) -> None:
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and not variadic and name not in own and name not in given:
            raise ConfigError("must be given: it has no default", field=f"{field}.{name}")


def _check_type(value: Any, annotation: Any, field: str) -> None:
    if _fits(value, annotation):
        return
    alone = any(_fits([value], option) for option in _options(annotation))
    hint = f"Write [{value}]." if alone and not isinstance(value, (list, tuple)) else None
    problem = "must be given" if value is None else "wrong type"
    raise ConfigError(problem, field=field, value=value, allowed=_described(annotation), hint=hint)


def _annotation(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The parameter's type; Any where it names what cannot be found."""
    if parameter.annotation is parameter.empty:
        return Any
    function = inspect.getattr_static(target, "__init__") if isinstance(target, type) else inspect.unwrap(target)
    namespace = dict(_NAMESPACE)
    for base in reversed(target.__mro__ if isinstance(target, type) else ()):  # fields of a dataclass's bases
        namespace |= vars(sys.modules[base.__module__])
    namespace |= getattr(function, "__globals__", {})
    try:
        holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
        found = typing.get_type_hints(holder, namespace)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any
    return found | None if parameter.default is None else found


def _options(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union; an annotation itself otherwise."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(option for each in typing.get_args(annotation) for option in _options(each))
    return (annotation,)


def _fits(value: Any, annotation: Any) -> bool:
    return any(_fits_one(value, option) for option in _options(annotation))


def _fits_one(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    arguments = typing.get_args(annotation)
    if origin is type(None):
        return value is None
    if origin is bool:
        return isinstance(value, bool)
    if origin in (int, float):
        kind = numbers.Integral if origin is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if origin in (str, Path):  # a name may look like a number
        return isinstance(value, (str, Path, int, float)) and not isinstance(value, bool)
    if origin is Literal:
        return value in arguments
    if origin in _LISTS:
        return isinstance(value, (list, tuple)) and _members_fit(value, origin, arguments)
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and (
            len(arguments) < 2 or all(_is_node(each) or _fits(each, arguments[1]) for each in value.values())
        )
    try:
        return not isinstance(origin, type) or isinstance(value, origin)
    except TypeError:  # a protocol, which cannot be asked
        return True


def _members_fit(value: Sequence[Any], origin: Any, arguments: tuple[Any, ...]) -> bool:
    if not arguments:
        return True
    if origin is tuple and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    return all(_is_node(each) or _fits(each, arguments[0]) for each in value)


def _described(annotation: Any, words: Mapping[Any, str] = _PLAIN) -> str:
    """What is allowed, in words: one of a kind, or several of it with the words of ``_PLURAL``."""
    options = _options(annotation)
    plain = [option for option in options if option in words or typing.get_origin(option)] or options
    return " or ".join(dict.fromkeys(_described_one(option, words) for option in plain))


def _described_one(annotation: Any, words: Mapping[Any, str]) -> str:
    origin = typing.get_origin(annotation) or annotation
    arguments = [each for each in typing.get_args(annotation) if each is not Ellipsis]
    if origin is Literal:
        return ", ".join(str(choice) for choice in arguments)
    if origin in _LISTS:
        lists = "lists" if words is _PLURAL else "a list"
        if origin is tuple and len(arguments) > 1:
            return f"{lists} of {len(arguments)}: {', '.join(map(_described, arguments))}"
        return f"{lists} of {_described(arguments[0], _PLURAL)}" if arguments else lists
    if origin in (Mapping, dict):
        return "mappings" if words is _PLURAL else "a mapping"
    return words.get(origin, f"a {getattr(origin, '__name__', origin)}")


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value
