"""From torch to ONNX, checked: the exchange format of the house."""

from .card import ModelCard, read_card, render_card, write_card
from .check import check_exported, check_onnx
from .direct import to_onnx_directly, to_onnx_quickly
from .direct_tape import NotDirectError
from .metadata import ModelMetadata, read_metadata
from .onnx_export import DEFAULT_OPSET, export_deployable
from .package import ExportedModel, build_model, export_model, load_architecture, load_model
from .quantisation import Quantisation, Quantiser, is_quantised, quantise

__all__ = [
    "DEFAULT_OPSET",
    "ExportedModel",
    "ModelCard",
    "ModelMetadata",
    "NotDirectError",
    "Quantisation",
    "Quantiser",
    "build_model",
    "check_exported",
    "check_onnx",
    "export_deployable",
    "export_model",
    "is_quantised",
    "load_architecture",
    "load_model",
    "quantise",
    "read_card",
    "read_metadata",
    "render_card",
    "to_onnx_directly",
    "to_onnx_quickly",
    "write_card",
]
