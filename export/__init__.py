"""From torch to ONNX, checked: the exchange format of the house."""
