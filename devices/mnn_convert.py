"""Converts one ONNX file with MNN: a process of its own, started by the MNN device.

``python -m gnomon.devices.mnn_convert MODEL TARGET``

It calls the converter in MNN's extension module. MNN's own command ``mnnconvert`` (and any import of
``MNN.tools``) is avoided: it runs ``pip install`` for a logging package that it misses, in whatever
environment ``pip`` happens to be, and reports the conversion to a server.
"""

from __future__ import annotations

import sys


def main() -> int:
    """MNN's exit code; the last line printed is the reason of a failure."""
    import _tools

    source, target = sys.argv[1:]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", target, "--bizCode", "gnomon"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
