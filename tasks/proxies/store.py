"""Scores of proxies on disk: what was computed once is not computed again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ...errors import StudyError

APPLICATION_ID = 0x474E4F50
"""``GNOP``, in the header of the SQLite file: no other program's file is taken for ours."""
VERSION = 1
BUSY_TIMEOUT_S = 30.0

_TABLES = (
    "CREATE TABLE IF NOT EXISTS scopes (id TEXT PRIMARY KEY, description TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS scores (scope TEXT NOT NULL, architecture TEXT NOT NULL, proxy TEXT NOT NULL, "
    "score REAL NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (scope, architecture, proxy))",
)


class ScoreStore:
    """Scores by (scope, architecture, proxy) in one SQLite file; several processes may use it at the same time.

    The scope is everything that scores depend on besides the architecture and the proxy: space, inputs, seed, batch
    size, repeats. It is kept as JSON beside its hash, so that the file says where its numbers come from.

    Args:
        path: The file; made, with its folder, if there is none.

    Raises:
        StudyError: If the file is damaged, of another program or a newer version, or cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"cannot make {self.path.parent}: {error.strerror or error}") from error
        with self._open() as connection:
            self._prepare(connection)

    def get(
        self, scope: Mapping[str, Any], architecture: str, proxies: Mapping[str, str]
    ) -> dict[str, tuple[float, float]]:
        """(score, seconds) by name of those that are known.

        Args:
            scope: JSON.
            architecture: Key in its space.
            proxies: Identity by name.
        """
        query = "SELECT proxy, score, seconds FROM scores WHERE scope = ? AND architecture = ?"
        with self._open() as connection:
            rows = connection.execute(query, (_hash(scope), architecture)).fetchall()
        known = {proxy: (score, seconds) for proxy, score, seconds in rows}
        return {name: known[identity] for name, identity in proxies.items() if identity in known}

    def put(
        self,
        scope: Mapping[str, Any],
        architecture: str,
        proxies: Mapping[str, str],
        found: Mapping[str, tuple[float, float]],
    ) -> None:
        """Adds (score, seconds) by name; they are on disk when this returns."""
        identity = _hash(scope)
        rows = [(identity, architecture, proxies[name], *values) for name, values in found.items()]
        with self._open() as connection, connection:
            connection.execute("INSERT OR IGNORE INTO scopes VALUES (?, ?)", (identity, _text(scope)))
            connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)", rows)

    def scopes(self) -> list[dict[str, Any]]:
        """What the scores in this file depend on."""
        with self._open() as connection:
            return [json.loads(text) for (text,) in connection.execute("SELECT description FROM scopes ORDER BY id")]

    def __len__(self) -> int:
        with self._open() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM scores").fetchone()[0])

    def _prepare(self, connection: sqlite3.Connection) -> None:
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if tables and application != APPLICATION_ID:
            raise StudyError(f"{self.path} is not a store of proxies' scores", hint="The file is unchanged.")
        if version > VERSION:
            raise StudyError(
                f"{self.path} was written by a newer gnomon",
                field="store version",
                value=version,
                allowed=f"up to {VERSION}",
            )
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use: none is shared between threads or by a fork. A network's scores take
        seconds, opening a file less than a millisecond."""
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise StudyError(
                f"cannot use the store of proxies' scores {self.path}: {error}",
                hint="It was left as it is. Check permissions and free space, or move the file away.",
            ) from error


def _text(scope: Mapping[str, Any]) -> str:
    return json.dumps(scope, sort_keys=True, allow_nan=False)


def _hash(scope: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(scope).encode()).hexdigest()
