"""Mixers by name: the files of this folder, or anybody's class by its import path."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

from ....errors import SpaceError
from .base import Mixer

_NO_MIXERS = ("base", "catalog")


@cache
def mixer_kinds() -> tuple[str, ...]:
    """Names of the mixers that ship; nothing is imported. Files that begin with ``_`` are helpers."""
    modules = (found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(sorted(name for name in modules if name not in _NO_MIXERS and not name.startswith("_")))


@cache
def mixer_class(kind: str) -> type[Mixer]:
    """The class of a kind, or of a path ``package.module.Class``.

    Raises:
        SpaceError: With the kinds that there are.
    """
    if "." in kind:
        module_name, _, class_name = kind.rpartition(".")
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError) as error:  # ValueError: `.name`
            raise SpaceError("cannot import this mixer", field="mixer", value=kind) from error
        if not (isinstance(found, type) and issubclass(found, Mixer)):
            raise SpaceError("not a Mixer", field="mixer", value=kind)
        return found
    if kind not in mixer_kinds():
        raise SpaceError("no such mixer", field="mixer", value=kind, allowed=f"{', '.join(mixer_kinds())}, or a class")
    module = importlib.import_module(f".{kind}", __package__)
    return next(
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Mixer) and member.__dict__.get("kind") == kind
    )
