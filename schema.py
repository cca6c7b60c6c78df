"""How Gnomon writes things down: JSON with a schema name and version, files replaced atomically.

A record is a frozen dataclass that derives from :class:`Record` and declares ``SCHEMA`` as
``name/version``. Unknown or newer schemas are refused with a clear error, never guessed at.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from .errors import SchemaError, StudyError

SCHEMA_KEY = "schema"


class Record:
    """Base of every dataclass that is written to disk or to the ledger."""

    SCHEMA: ClassVar[str] = ""
    OLDER: ClassVar[tuple[str, ...]] = ()
    """Schemas of earlier versions that :meth:`upgraded` can read."""

    @classmethod
    def upgraded(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """``data`` of one of the older schemas as today's: fields that it lacks take their defaults."""
        return data

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with the schema under ``"schema"``."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {SCHEMA_KEY: type(self).SCHEMA, **plain} if type(self).SCHEMA else plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The record that ``data`` describes.

        Raises:
            SchemaError: If the schema is another one, or fields are missing or unknown.
        """
        if not isinstance(data, Mapping):
            raise SchemaError(f"cannot read {cls.__name__}: not a JSON object", field="data", value=data)
        if cls.SCHEMA:
            if data.get(SCHEMA_KEY) in cls.OLDER:
                data = {**cls.upgraded(data), SCHEMA_KEY: cls.SCHEMA}
            check_schema(data, cls.SCHEMA)
        hints = typing.get_type_hints(cls)
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = set(data) - names - {SCHEMA_KEY}
        if unknown:
            raise SchemaError(
                f"{cls.__name__} has unknown fields", field="fields", value=sorted(unknown), allowed=sorted(names)
            )
        try:
            return cls(**{name: _typed(hints[name], data[name]) for name in names if name in data})
        except (TypeError, ValueError, KeyError) as error:
            raise SchemaError(f"cannot read {cls.__name__}: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise SchemaError(f"not JSON: {error}") from error
        return cls.from_dict(data)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") and not isinstance(value, (str, bytes)) else value


def _typed(hint: Any, value: Any) -> Any:
    """``value`` (JSON types) as the annotated type, so that tuples and nested records come back."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _typed(next(a for a in arguments if a is not type(None)), value)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_typed(arguments[0], item) for item in value)
        return tuple(_typed(a, item) for a, item in zip(arguments, value, strict=True))
    if origin is list:
        return [_typed(arguments[0], item) for item in value]
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {key: _typed(arguments[1], item) for key, item in value.items()}
    return float(value) if hint is float and isinstance(value, int) else value


def check_schema(data: Mapping[str, Any], expected: str, *, source: str | Path = "this data") -> None:
    """Refuses data whose schema is not ``expected``.

    Raises:
        SchemaError: With what was found and what is needed.
    """
    found = data.get(SCHEMA_KEY)
    if found != expected:
        raise SchemaError(
            f"{source} was written with another schema",
            field=SCHEMA_KEY,
            value=found,
            allowed=expected,
            hint="Write it again with this version of gnomon, or open it with the version that wrote it.",
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces ``path`` atomically: a reader, or a kill, sees the old file or the new one.

    Raises:
        StudyError: If the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StudyError(
            f"cannot write {path}: {error.strerror or error}",
            hint="Check permissions and free space, or choose another study.dir.",
        ) from error


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, schema: str, data: Mapping[str, Any]) -> None:
    """Writes ``data`` with its schema, atomically."""
    write_text(path, json.dumps({SCHEMA_KEY: schema, **_plain(data)}, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, schema: str) -> dict[str, Any]:
    """Reads what :func:`write_json` wrote, without the schema key.

    Raises:
        SchemaError: If the file is missing, damaged or of another schema.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SchemaError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise SchemaError(f"cannot read {path}: it does not hold a JSON object")
    check_schema(data, schema, source=path)
    data.pop(SCHEMA_KEY)
    return data
