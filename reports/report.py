"""The report of a study: plots as PNG files and one HTML page."""

from __future__ import annotations

from pathlib import Path

from ..errors import SchemaError, StudyError
from ..records import StudySummary
from ..schema import read_json, write_text

SUMMARY_FILE = "study.json"
REPORT_FILE = "report.html"


def read_summary(study_folder: Path) -> StudySummary:
    """The summary that the search keeps in a study's folder.

    Raises:
        StudyError: If there is none yet.
        SchemaError: If the file is damaged or was written by another program or version.
    """
    path = study_folder / SUMMARY_FILE
    if not path.is_file():
        raise StudyError(
            "has nothing to report yet",
            field="from",
            value=str(study_folder),
            allowed=f"the folder of a study, with {SUMMARY_FILE}",
        )
    data = read_json(path, StudySummary.SCHEMA)
    try:
        return StudySummary.from_dict({"schema": StudySummary.SCHEMA, **data})
    except SchemaError as error:
        raise SchemaError(f"cannot read {path}: {error}") from error


def write_report(study_folder: Path) -> Path:
    """Writes ``plots/*.png`` and ``report.html`` beside ``study.json``; older ones are replaced.

    Works on unfinished studies and on studies without models; the page says so.

    Returns:
        The page.

    Raises:
        StudyError: If there is no summary yet, or the folder cannot be written.
        SchemaError: If the summary is damaged or of another schema.
    """
    from .html_report import render_html
    from .plots import FOLDER, write_plots

    summary = read_summary(study_folder)
    plots = write_plots(summary, study_folder / FOLDER)
    path = study_folder / REPORT_FILE
    write_text(path, render_html(summary, plots, study_folder))
    return path
