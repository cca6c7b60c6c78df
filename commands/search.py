"""Search for the best models under a latency limit, and hand back a verified front.

The same command resumes the same study; `study.resume=FOLDER` goes on with one under the settings
it was started with. `--plan` prints trainings, measurements and time before anything starts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options

CONFIG = "search"
PLANS = True


def run(config: DictConfig, options: Options) -> int:
    """Runs or resumes a search; prints the front and where the report is."""
    if config.study.resume is not None:
        config = _resumed(config, options)
    if options.plan:
        from ._plan import print_plan

        print_plan(config, as_json=options.json)
        return 0
    from ..search.study import run_search
    from ._display import SearchDisplay

    with SearchDisplay(config.study.evaluations, "quality", _epochs_before(config)) as display:
        summary, components = run_search(config, display)

    from ..reports import write_report
    from ..reports.tables import print_summary

    report = write_report(components.study.path)
    if options.json:
        print(json.dumps({"study": str(components.study.path), "report": str(report), **summary.to_dict()}))
    else:
        print_summary(summary)
        print(f"\nreport: {report}\nmodels: {components.study.path / 'models'}")
    return 0


def _epochs_before(config: DictConfig) -> int | None:
    """Epochs that are trained before the first evaluation, by the strategy or for the quality."""
    epochs: int | None = config.strategy.get("epochs", config.quality.get("epochs"))
    return epochs


def _resumed(config: DictConfig, options: Options) -> DictConfig:
    """The saved config, with what this command line says of ``study`` and ``finalise``."""
    from omegaconf import OmegaConf

    from ..search.study import resume_config

    own = [word for word in options.overrides if not word.startswith("study.resume=")]
    return resume_config(Path(config.study.resume), OmegaConf.from_dotlist(own) if own else None)
