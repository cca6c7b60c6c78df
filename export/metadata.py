"""What an exported file says of itself, in ONNX's ``metadata_props``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .. import __version__
from ..errors import ExportError, SchemaError
from ..schema import SCHEMA_KEY, Record
from ..search_spaces import Architecture

PREFIX = "gnomon."


@dataclass(frozen=True)
class ModelMetadata(Record):
    """Everything that a person needs to use a file without the study that made it.

    Args:
        architecture: Identity, with the space's constructor; None for models of no space.
        task: Identity of the task: name, splits, data hash.
        labels: Class names in the order of the outputs.
        preprocessing: What turns a raw example into the model's input, normalisation included.
        interface: How the graphs of a model that has several fit together: states, which output feeds which input.
        version: The gnomon that wrote it.
    """

    SCHEMA: ClassVar[str] = "gnomon.model/1"

    architecture: Architecture | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    interface: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    def props(self) -> dict[str, str]:
        """As text by key, each key starting with ``gnomon.``: the schema and version as they are,
        the rest as JSON."""
        plain = self.to_dict()
        text = {SCHEMA_KEY: plain.pop(SCHEMA_KEY), "version": plain.pop("version")}
        text |= {key: json.dumps(value, sort_keys=True) for key, value in plain.items()}
        return {PREFIX + key: value for key, value in text.items()}


def read_metadata(path: Path) -> ModelMetadata:
    """What :meth:`ModelMetadata.props` put into an ONNX file. The weights are not decoded.

    Raises:
        ExportError: If the file cannot be read, or holds no metadata of gnomon's.
        SchemaError: If the metadata are damaged or of another schema.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own DecodeError
        raise ExportError(f"cannot read {path} as an ONNX file: {error}") from error
    props = {p.key.removeprefix(PREFIX): p.value for p in model.metadata_props if p.key.startswith(PREFIX)}
    if not props:
        raise ExportError(f"{path} holds no gnomon metadata", hint="It was not exported by gnomon.")
    plain: dict[str, Any] = {}
    for key, value in props.items():
        try:
            plain[key] = value if key in (SCHEMA_KEY, "version") else json.loads(value)
        except json.JSONDecodeError as error:
            raise SchemaError(f"{path}: metadata {PREFIX}{key} is not JSON: {error}") from error
    return ModelMetadata.from_dict(plain)
