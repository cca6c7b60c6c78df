"""Opening an Optuna storage, and saying in one line what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ..errors import DependencyError, StudyError


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage behind ``study.storage``: a database URL, or a file ending in ``.journal``.

    Raises:
        StudyError: If it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with storage_errors(url):
        if url.endswith(".journal"):
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(url))
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
            _write_ahead(storage.engine)
        else:
            storage = optuna.storages.RDBStorage(url)
        return optuna.storages.get_storage(storage)


def _write_ahead(engine: sqlalchemy.Engine) -> None:
    """Write-ahead logging: readers do not block the writer, and a commit needs no disk flush. A
    killed process loses nothing; a power cut may lose the last commits, never the file."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()  # connections made before do not know these


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns a storage's exceptions into one clear line; nothing on disk is touched.

    Raises:
        StudyError: Instead of what the storage raised.
    """
    try:
        yield
    except ImportError as error:  # the database's driver
        raise DependencyError(
            f"this storage needs a driver: {error}",
            field="study.storage",
            value=url,
            hint="For PostgreSQL: pip install 'gnomon-nas[postgres]'",
        ) from error
    except (OSError, ValueError, optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ or error
        text = str(getattr(cause, "orig", cause)).splitlines()
        raise StudyError(
            f"the study cannot be read or written: {text[0] if text else type(cause).__name__}",
            field="study.storage",
            value=url,
            hint="What was written before is kept. Check that it is a Gnomon study, permissions and free space, "
            "or choose another study.name or study.dir.",
        ) from error
