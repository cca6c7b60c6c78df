"""Write report.html and the plots of a study again, finished or not.

gnomon report from=runs/my-study
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options

CONFIG = "report"


def run(config: DictConfig, options: Options) -> int:
    """Brings ``study.json`` up to date where the study is still running, then writes the report."""
    from ..reports import write_report
    from ..search.study import refresh_summary
    from ._studies import study_folder

    folder = study_folder(config)
    refresh_summary(folder)
    path = write_report(folder)
    print(json.dumps({"report": str(path)}) if options.json else f"report: {path}")
    return 0
