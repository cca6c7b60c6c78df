"""Where images come from, by one name each: ``_target_: gnomon.tasks.datasets.<class>``."""

from .image_data import ImageData, ImageSource
from .own_data import ImageFolder, Npz
from .packaged_data import AnimalSilhouettes, Digits, MnistSubset

__all__ = ["AnimalSilhouettes", "Digits", "ImageData", "ImageFolder", "ImageSource", "MnistSubset", "Npz"]
