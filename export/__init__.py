"""From torch to ONNX, checked: the exchange format of the house."""

from .onnx_export import export_deployable

__all__ = ["export_deployable"]
