"""What a remote host needs to run: the code of the measuring process, and a model's files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from ..errors import DeviceError, MeasurementError

ROOT_MODULES = ("errors.py", "schema.py")
ROOMS = ("devices", "export", "records", "search_spaces")
"""Sub-packages that devices may import: a host builds the device, and torch runners modules from their space."""
_DATE = (1980, 1, 1, 0, 0, 0)


def code_bundle(modules: Iterable[str] = ()) -> bytes:
    """A zip file of the package's measuring code, the same bytes for the same code.

    Args:
        modules: A user's own modules (a runner, a space) by name; their top-level packages are packed whole.

    Raises:
        DeviceError: If such a module has no Python source.
    """
    package = __package__.rpartition(".")[0]
    root = resources.files(package)
    files = {f"{package}/{name}": root / name for name in ("__init__.py", *ROOT_MODULES)}
    for room in ROOMS:
        files.update(_sources(root / room, f"{package}/{room}"))
    for name in {module.partition(".")[0] for module in modules} - {package}:
        files.update(_module_sources(name))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path, file in sorted(files.items()):
            bundle.writestr(zipfile.ZipInfo(path, _DATE), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def model_files(path: Path) -> list[Path]:
    """``path`` and the files beside it without which it does not load, relative names to be kept.

    For ONNX files their external data. For other formats (made by a converter in a folder of their own)
    the files of the same stem: ``model.xml`` and ``model.bin``, ``model.param`` and ``model.bin``.

    Raises:
        MeasurementError: If it is missing, or names a file outside its folder.
    """
    if not path.exists():
        raise MeasurementError("no such file", field="path", value=str(path))
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file()]
    if path.suffix == ".onnx":
        return [path, *(path.parent / name for name in _external_data(path))]
    return [path, *sorted(other for other in path.parent.glob("*") if other.stem == path.stem and other != path)]


def _external_data(path: Path) -> list[str]:
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        tensors = onnx.load(path, load_external_data=False).graph.initializer
    except Exception:  # not an ONNX file: the runtime over there will say so
        return []
    names = sorted({ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)})
    for name in names:
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            raise MeasurementError("its weights lie outside its folder", field="external data", value=name)
    return names


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for file in folder.iterdir():
        if file.is_dir() and file.name != "__pycache__":
            yield from _sources(file, f"{prefix}/{file.name}")
        elif file.name.endswith(".py"):
            yield f"{prefix}/{file.name}", file


def _module_sources(name: str) -> Iterator[tuple[str, Traversable]]:
    spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            yield from _sources(Path(folder), name)
    elif spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
        yield f"{name}.py", Path(spec.origin)
    else:
        raise DeviceError("cannot be sent to a remote host: it has no Python source", field="module", value=name)
