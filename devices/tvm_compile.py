"""Compiles an ONNX file with Apache TVM: a script, one process a model.

``python -I tvm_compile.py MODEL SHAPES TARGET COMPILER LIBRARY``, with ``SHAPES`` as JSON
(``{"input": [1, 3, 32, 32]}``), ``TARGET`` as TVM writes targets, and the C++ ``COMPILER`` that links.
"""

from __future__ import annotations

import json
import sys


def main() -> int:
    """Exit code 0 if the library was written; else the last line printed is the reason."""
    model, shapes, target, compiler, library = sys.argv[1:]
    try:
        build(model, json.loads(shapes), target, compiler, library)
    except Exception as error:  # whatever TVM raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300])
        return 1
    return 0


def build(model: str, shapes: dict[str, list[int]], target: str, compiler: str, library: str) -> None:
    """Writes the shared library of the model's function ``main``."""
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx
    from tvm.support import cc

    module = from_onnx(onnx.load(model), shape_dict=shapes, keep_params_in_input=False)
    # The default pipeline alone leaves operators that it cannot build: "zero" makes them loops and fuses them.
    module = relax.get_pipeline("zero")(module)
    kind = tvm.target.Target(json.loads(target) if target.startswith("{") else target)
    executable = tvm.compile(module, target=kind)
    executable.export_library(library, fcompile=cc.cross_compiler(compiler))


if __name__ == "__main__":
    sys.exit(main())
