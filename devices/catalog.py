"""Which devices there are, and which can run here: read from the conf group, no list to maintain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ..errors import DeviceError
from .base import Device
from .runner import import_class


@dataclass(frozen=True)
class DeviceEntry:
    """One option of the group ``device``.

    Args:
        option: What to write: ``device=option``.
        target: Class path.
        accepts: ``torch``, ``onnx`` or ``architecture``.
        summary: First sentence of the class's docstring.
        unavailable: Why it cannot run here and what to install; None if it can.
    """

    option: str
    target: str
    accepts: str
    summary: str
    unavailable: str | None


def discover_devices(config_dirs: Iterable[Path] = ()) -> tuple[DeviceEntry, ...]:
    """Every option of the packaged group ``device`` and of ``config_dirs`` (a user's own), by name.

    A file that names no importable device is listed with the reason, so that one broken file does
    not hide the others.
    """
    package = __package__.rpartition(".")[0]
    folders: list[Traversable] = [resources.files(package) / "conf" / "device"]
    folders += [Path(folder) / "device" for folder in config_dirs]
    files = {file.name: file for folder in folders if folder.is_dir() for file in folder.iterdir()}
    return tuple(_entry(file) for name, file in sorted(files.items()) if name.endswith(".yaml"))


def _entry(file: Traversable) -> DeviceEntry:
    option, target = file.name.removesuffix(".yaml"), ""
    try:
        target = _target(file)
        device = import_class(target)
        if not (isinstance(device, type) and issubclass(device, Device)):
            raise DeviceError("not a Device", field="_target_", value=target)
    except DeviceError as error:
        return DeviceEntry(option, target, "", "", str(error))
    summary = " ".join((device.__doc__ or "").split()).split(". ")[0].rstrip(".")
    return DeviceEntry(option, target, device.accepts, summary, device.unavailable())


def _target(file: Traversable) -> str:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
        if not isinstance(config, dict):
            raise TypeError("not a mapping")
        return str(config["_target_"])
    except (OmegaConfBaseException, YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError("not a device's configuration", field="file", value=file.name) from error
