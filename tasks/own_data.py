"""A user's own images: a folder per class, or an npz file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError, DependencyError
from .image_data import ImageArray, ImageData, ImageSource, LabelArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MODES = {"grey": "L", "rgb": "RGB"}


@dataclass(frozen=True)
class ImageFolder(ImageSource):
    """Images as ``root/<class name>/<any name>.png|jpg|jpeg|bmp``; classes sort by name.

    Args:
        root: The folder that holds one folder per class.
        size: Side length, or (height, width), that every image is resized to (bilinear); None if
            all images already have one shape.
        channels: ``grey`` or ``rgb``.
    """

    name: ClassVar[str] = "image_folder"

    root: str | None = None
    size: int | tuple[int, int] | None = None
    channels: str = "rgb"

    def load(self) -> ImageData:
        if self.channels not in MODES:
            raise ConfigError("unknown channels", field="task.data.channels", value=self.channels, allowed=MODES)
        if self.root is None:
            raise ConfigError(
                "needs a folder", field="task.data.root", value=None, allowed="a folder that holds one folder per class"
            )
        root, size = Path(self.root), self._size()
        if not root.is_dir():
            raise DataError("no such folder", field="task.data.root", value=str(self.root))
        images: list[npt.NDArray[np.uint8]] = []
        labels: list[int] = []
        names = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
        if len(names) < 2:
            raise DataError(
                f"{len(names)} class folders found",
                field="task.data.root",
                value=str(self.root),
                allowed="at least 2 folders, one per class",
            )
        for label, name in enumerate(names):
            paths = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not paths:
                raise DataError(f"class folder {root / name} holds no image", allowed="*" + ", *".join(SUFFIXES))
            for path in paths:
                images.append(_read_image(path, MODES[self.channels], size))
                _check_same_shape(images[0], images[-1], path)
                labels.append(label)
        return ImageData(np.stack(images), np.array(labels, np.int64), names, f"folder {root.name}", 1 / 255, size)

    def _size(self) -> tuple[int, int] | None:
        if self.size is None:
            return None
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ConfigError(
                "not an image size",
                field="task.data.size",
                value=self.size,
                allowed="a positive integer or (height, width)",
            )
        return size


def _read_image(path: Path, mode: str, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """One image as ``(C, H, W)``."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DependencyError(
            "image files are read by the package pillow, which is not installed",
            hint="Run: pip install 'gnomon-nas[demo]'",
        ) from error
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith(("I", "F")):
                # Pillow would clip 16-bit pixels to 8 bits without a word.
                raise DataError(f"{path} has more than 8 bits a channel", allowed="8-bit images, or an npz of floats")
            picture = picture.convert(mode)
            if size is not None:
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read image {path}: {error}") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_same_shape(first: npt.NDArray[Any], other: npt.NDArray[Any], path: Path) -> None:
    if first.shape != other.shape:
        raise DataError(
            f"image shapes differ: {path} is {other.shape[1]}x{other.shape[2]}, "
            f"the first image {first.shape[1]}x{first.shape[2]}",
            field="task.data.size",
            value=None,
            allowed="a size to resize to",
        )


@dataclass(frozen=True)
class Npz(ImageSource):
    """A ``.npz`` file with ``images`` and ``labels``, and optionally ``labels_text``.

    ``images``: ``(N, H, W)``, ``(N, C, H, W)`` or, with ``layout: NHWC``, ``(N, H, W, C)``; uint8
    (0..255) or floats. ``labels``: ``(N,)`` integers, or strings. ``labels_text``: class names
    ``(K,)`` that integer labels 0..K-1 index into; without it, the distinct labels are the classes.

    Args:
        path: The file.
        layout: ``NCHW`` or ``NHWC``.
    """

    name: ClassVar[str] = "npz"

    path: str | None = None
    layout: str = "NCHW"

    def load(self) -> ImageData:
        if self.layout not in ("NCHW", "NHWC"):
            raise ConfigError("unknown layout", field="task.data.layout", value=self.layout, allowed="NCHW, NHWC")
        if self.path is None:
            raise ConfigError(
                "needs a file", field="task.data.path", value=None, allowed="an .npz with images and labels"
            )
        path = Path(self.path)
        arrays = _read_npz(path)
        for name in ("images", "labels"):
            if name not in arrays:
                raise DataError(
                    f"{path} holds no array {name!r}", field="arrays", value=sorted(arrays), allowed="images, labels"
                )
        images = self._images(arrays["images"], path)
        labels, names = _labels(arrays["labels"], arrays.get("labels_text"), path)
        return ImageData(images, labels, names, f"npz {path.name}", 1 / 255 if images.dtype == np.uint8 else 1.0)

    def _images(self, images: npt.NDArray[Any], path: Path) -> ImageArray:
        if images.ndim == 3:
            images = images[:, None]
        elif images.ndim == 4 and self.layout == "NHWC":
            images = images.transpose(0, 3, 1, 2)
        elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3):
            raise DataError(
                f"{path}: images look like (N, H, W, C)",
                field="task.data.layout",
                value=self.layout,
                allowed="NHWC for this file",
            )
        if images.dtype == np.uint8:
            return np.ascontiguousarray(images)
        if np.issubdtype(images.dtype, np.floating):
            return np.ascontiguousarray(images, dtype=np.float32)
        raise DataError(
            f"{path}: pixels have the wrong type", field="images.dtype", value=str(images.dtype), allowed="uint8, float"
        )


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise DataError("no such file", field="task.data.path", value=str(path))
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"cannot read {path}: a single array, not an npz archive")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _labels(labels: npt.NDArray[Any], text: npt.NDArray[Any] | None, path: Path) -> tuple[LabelArray, tuple[str, ...]]:
    """Class indices and names."""
    kind = labels.dtype.kind
    if labels.ndim != 1 or kind not in "iuUS":
        raise DataError(
            f"{path}: labels have the wrong shape or type",
            field="labels",
            value=(labels.shape, str(labels.dtype)),
            allowed="(N,) integers or strings",
        )
    if text is not None:
        if kind not in "iu":
            raise DataError(f"{path}: labels_text needs integer labels", field="labels.dtype", value=str(labels.dtype))
        return labels.astype(np.int64), tuple(str(name) for name in text.reshape(-1))
    classes, indices = np.unique(labels, return_inverse=True)
    names = tuple(c.decode() if isinstance(c, bytes) else str(c) for c in classes.tolist())
    return indices.astype(np.int64), names
