"""Where pairs of sequences come from, by one name each: ``_target_: gnomon.tasks.sequences.sources.<class>``."""

from .gettext_catalogs import GettextPairs
from .pairs import PairData, PairSource
from .pronunciations import CmuDict
from .tsv import TsvPairs

__all__ = ["CmuDict", "GettextPairs", "PairData", "PairSource", "TsvPairs"]
