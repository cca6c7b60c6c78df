"""One proposer at a time: a lease on a study that survives the death of its holder.

Claims on trials need no lease (Optuna's storage changes a trial's state atomically). Proposing
does: two workers that propose at once from the same history would propose the same architectures.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import sqlalchemy as sql
from optuna.storages.journal import JournalFileOpenLock

LEASE_S = 60.0
"""A holder renews well within this; after it, the lease is anybody's."""


def worker_id() -> str:
    """``host:pid:start``, unique over reboots and reused process ids."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def is_dead(worker: str) -> bool:
    """Whether that worker certainly no longer runs: it is of this host and its process is gone."""
    host, pid, start = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(start)) > 1.0)
    except psutil.NoSuchProcess:
        return True


class Lease(ABC):
    """Mutual exclusion between workers of one study."""

    @abstractmethod
    def acquire(self) -> bool:
        """Takes the lease if it is free, expired, or its holder is dead. Does not wait."""

    @abstractmethod
    def renew(self) -> bool:
        """Prolongs it; False if it was lost meanwhile."""

    @abstractmethod
    def release(self) -> None:
        """Gives it back, if it is still held."""

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Yields whether the lease was obtained; while it is held, a thread renews it."""
        if not self.acquire():
            yield False
            return
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(LEASE_S / 6):
                self.renew()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield True
        finally:
            stop.set()
            thread.join()
            self.release()


class SqlLease(Lease):
    """A row in the study's own database, changed by compare-and-swap."""

    def __init__(self, engine: Any, study: str, worker: str) -> None:
        self._engine = engine
        self._study = study
        self._worker = worker
        self._table = sql.Table(
            "gnomon_leases",
            sql.MetaData(),
            sql.Column("study", sql.String(512), primary_key=True),
            sql.Column("holder", sql.String(512)),
            sql.Column("expires", sql.Float),
        )
        self._table.metadata.create_all(engine, checkfirst=True)

    def acquire(self) -> bool:
        table, now = self._table, time.time()
        with self._engine.begin() as connection:
            row = connection.execute(sql.select(table).where(table.c.study == self._study)).first()
        if row is None:
            try:
                with self._engine.begin() as connection:
                    connection.execute(
                        table.insert().values(study=self._study, holder=self._worker, expires=now + LEASE_S)
                    )
                return True
            except sql.exc.IntegrityError:
                return False
        free = row.holder is None or row.expires < now or row.holder == self._worker or is_dead(row.holder)
        return free and self._swap(row.holder, row.expires, self._worker, now + LEASE_S)

    def renew(self) -> bool:
        table = self._table
        with self._engine.begin() as connection:
            result = connection.execute(
                table.update()
                .where(table.c.study == self._study, table.c.holder == self._worker)
                .values(expires=time.time() + LEASE_S)
            )
        return bool(result.rowcount == 1)

    def release(self) -> None:
        table = self._table
        with self._engine.begin() as connection:
            connection.execute(
                table.update().where(table.c.study == self._study, table.c.holder == self._worker).values(holder=None)
            )

    def _swap(self, holder: str | None, expires: float, new_holder: str, new_expires: float) -> bool:
        """Compare-and-swap on what was read: of two workers that saw the same row, one wins."""
        table = self._table
        same_holder = table.c.holder.is_(None) if holder is None else table.c.holder == holder
        with self._engine.begin() as connection:
            result = connection.execute(
                table.update()
                .where(table.c.study == self._study, same_holder, table.c.expires == expires)
                .values(holder=new_holder, expires=new_expires)
            )
        return bool(result.rowcount == 1)


class FileLease(Lease):
    """A lock file beside a journal, for studies without a database."""

    def __init__(self, path: str) -> None:
        self._lock = JournalFileOpenLock(f"{path}.lease", grace_period=int(LEASE_S))
        self._held = False

    def acquire(self) -> bool:
        # Waits for a living holder; a dead one's file is taken over after the grace period.
        self._held = bool(self._lock.acquire())
        return self._held

    def renew(self) -> bool:
        return self._held

    def release(self) -> None:
        if self._held:
            self._lock.release()
            self._held = False
