"""Finding a study's folder from ``from=`` or by taking the newest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StudyError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def study_folder(config: DictConfig) -> Path:
    """The folder that ``from`` names, else ``<dir>/<name>``, else the newest in ``dir``.

    Raises:
        StudyError: If there is none.
    """
    from ..search.study import CONFIG_FILE

    root = Path(config.dir)
    if config["from"] is not None:
        folder, field = Path(config["from"]), "from"
    elif config.name is not None:
        folder, field = root / config.name, "name"
    else:
        found = sorted(root.glob(f"*/{CONFIG_FILE}"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise StudyError("holds no study", field="dir", value=str(root), hint="Start one with `gnomon search`.")
        return found[-1].parent
    if not (folder / CONFIG_FILE).is_file():
        raise StudyError("holds no study", field=field, value=str(folder), allowed=f"a folder with {CONFIG_FILE}")
    return folder
