"""Tables, plots and one HTML page from a finished or running study."""

from .report import write_report

__all__ = ["write_report"]
