"""The measurement store: what was measured once is not measured again."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import StudyError
from .measurement import Measurement, Statistic

APPLICATION_ID = 0x474E4F4D
"""``GNOM``, in the header of the SQLite file: no other program's file is taken for ours."""
VERSION = 1
BUSY_TIMEOUT_S = 30.0

_TABLE = """
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY,
    setting TEXT NOT NULL,
    deployable TEXT NOT NULL,
    protocol TEXT NOT NULL,
    statistic TEXT NOT NULL,
    verdict TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    measurement TEXT NOT NULL
)
"""
_INDEX = """
CREATE INDEX IF NOT EXISTS measurements_by_key
ON measurements (setting, deployable, protocol, statistic)
"""
_GET = """
SELECT measurement FROM measurements
WHERE setting = ? AND deployable = ? AND protocol = ? AND statistic = ? AND verdict != 'failed'
ORDER BY verdict = 'good' DESC, timestamp DESC, id DESC LIMIT 1
"""
_PUT = """
INSERT INTO measurements (setting, deployable, protocol, statistic, verdict, timestamp, measurement)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class MeasurementStore:
    """Measurements in one SQLite file, kept for ever, failed ones included.

    Several processes and threads of one machine may read and write at the same time (write-ahead
    log, waiting for locks up to 30 s). A damaged file is reported and never changed.

    Args:
        path: The file; made, with its folder, if there is none.

    Raises:
        StudyError: If the file is damaged, of another program or a newer version, or cannot be
            written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._local = threading.local()
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare(self._connection())

    def get(self, setting_id: str, deployable_id: str, protocol_id: str, statistic: Statistic) -> Measurement | None:
        """The best that is known: good before noisy or throttled, then the newest; never a failed one.

        Raises:
            StudyError: If the file became unreadable.
            SchemaError: If the measurement was written by another version.
        """
        with self._explained():
            row = self._connection().execute(_GET, (setting_id, deployable_id, protocol_id, statistic)).fetchone()
        return None if row is None else Measurement.from_json(row[0])

    def put(self, deployable_id: str, measurement: Measurement) -> None:
        """Adds a measurement; it is on disk when this returns.

        Raises:
            StudyError: If the file cannot be written.
        """
        m = measurement
        row = (m.setting.id, deployable_id, m.protocol, m.statistic, m.verdict, m.timestamp, m.to_json())
        with self._explained(), self._connection() as connection:
            connection.execute(_PUT, row)

    def all(self, setting_id: str | None = None) -> list[Measurement]:
        """Every measurement, failed ones included, in the order in which they were put.

        Args:
            setting_id: Only those of one setting.
        """
        where, arguments = ("", ()) if setting_id is None else ("WHERE setting = ?", (setting_id,))
        with self._explained():
            query = f"SELECT measurement FROM measurements {where} ORDER BY id"
            rows = self._connection().execute(query, arguments).fetchall()
        return [Measurement.from_json(text) for (text,) in rows]

    def entries(self) -> list[tuple[str, Measurement]]:
        """Every measurement with the identity of the deployable that was measured, in order."""
        with self._explained():
            query = "SELECT deployable, measurement FROM measurements ORDER BY id"
            rows = self._connection().execute(query).fetchall()
        return [(deployable, Measurement.from_json(text)) for deployable, text in rows]

    def __len__(self) -> int:
        with self._explained():
            return int(self._connection().execute("SELECT COUNT(*) FROM measurements").fetchone()[0])

    def close(self) -> None:
        """Closes this thread's connection; the store opens another when it is used again."""
        if getattr(self._local, "owner", None) == os.getpid():
            self._local.connection.close()
            self._local.owner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- The file ---------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection: SQLite's must be shared neither between threads nor by a fork."""
        owner: int | None = getattr(self._local, "owner", None)
        if owner != os.getpid():
            self._local.connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)
            self._local.owner = os.getpid()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # The tables first: another process may be making the file, and sets the header together with them.
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if tables and application != APPLICATION_ID:
            raise StudyError(
                f"{self.path} is not a measurement store", hint="Choose another study.store; the file is unchanged."
            )
        if version > VERSION:
            raise StudyError(
                f"{self.path} was written by a newer gnomon",
                field="store version",
                value=version,
                allowed=f"up to {VERSION}",
                hint="Update gnomon, or choose another study.store.",
            )
        if version == VERSION:
            return
        self._use_write_ahead_log(connection)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(_INDEX)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def _use_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        """SQLite does not wait for locks in this one statement, so two first users would collide."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns errors of SQLite and the file system into one that says what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StudyError(
                f"cannot use the measurement store {self.path}: {error}",
                hint="Check permissions, free space and other running studies, or choose another study.store.",
            ) from error
        except sqlite3.DatabaseError as error:
            raise StudyError(
                f"the measurement store {self.path} is damaged: {error}",
                hint="It was left as it is. Move it away, or restore a copy; what it held is then measured again.",
            ) from error
        except OSError as error:
            raise StudyError(
                f"cannot make the measurement store {self.path}: {error.strerror or error}",
                hint="Check permissions, or choose another study.store.",
            ) from error
