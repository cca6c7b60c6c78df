"""One proposer at a time: a lease on a study that survives the death of its holder.

Claims on trials need no lease (Optuna's storage changes a trial's state atomically). Proposing
does: two workers that propose at once from the same history would propose the same architectures.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import psutil
import sqlalchemy as sql

from ..errors import StudyError
from .storage import storage_errors

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""A holder renews well within this; after it, the lease is anybody's."""


def worker_id() -> str:
    """``where:pid:start``, unique over reboots, containers and reused process ids."""
    pid = os.getpid()
    return f"{_where()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def is_dead(worker: str) -> bool:
    """Whether that worker certainly no longer runs: it was started where this process runs, and
    its process is gone."""
    where, pid, start = worker.rsplit(":", 2)
    if where != _where():
        return False
    try:
        process = psutil.Process(int(pid))
        reused = abs(process.create_time() - float(start)) > 1.0
        return bool(reused or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@cache
def _where() -> str:
    """Host, boot and process namespace: within one, process ids can be compared. Containers may
    share a host's name and not its processes."""
    try:
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        namespace = "0"
    return f"{socket.gethostname()}/{psutil.boot_time():.0f}/{namespace}"


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
                try:
                    if not self.renew():
                        return
                except StudyError as error:  # the main thread's next write will say it aloud
                    log.warning("renewing the lease: %s", error)

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

    def __init__(self, engine: sql.Engine, name: str, worker: str) -> None:
        self._engine = engine
        self._name = name
        self._worker = worker
        self._table = sql.Table(
            "gnomon_leases",
            sql.MetaData(),
            sql.Column("study", sql.String(512), primary_key=True),
            sql.Column("holder", sql.String(512)),
            sql.Column("expires", sql.Float),
        )
        with self._errors():
            try:
                self._table.metadata.create_all(engine, checkfirst=True)
            except (sql.exc.OperationalError, sql.exc.ProgrammingError):
                if not sql.inspect(engine).has_table(self._table.name):  # else another worker just made it
                    raise

    def acquire(self) -> bool:
        table, now = self._table, time.time()
        with self._errors():
            with self._engine.begin() as connection:
                row = connection.execute(sql.select(table).where(table.c.study == self._name)).first()
            if row is None:
                return self._insert(now + LEASE_S)
            free = row.holder is None or row.expires < now or row.holder == self._worker or is_dead(row.holder)
            return free and self._swap(row.holder, row.expires, now + LEASE_S)

    def renew(self) -> bool:
        return self._update(self._mine, expires=time.time() + LEASE_S)

    def release(self) -> None:
        self._update(self._mine, holder=None)

    @property
    def _mine(self) -> Any:
        return self._table.c.holder == self._worker

    def _insert(self, expires: float) -> bool:
        try:
            with self._engine.begin() as connection:
                connection.execute(self._table.insert().values(study=self._name, holder=self._worker, expires=expires))
            return True
        except sql.exc.IntegrityError:  # another worker was first
            return False

    def _swap(self, holder: str | None, seen_expires: float, expires: float) -> bool:
        """Compare-and-swap on what was read: of two workers that saw the same row, one wins."""
        column = self._table.c.holder
        same = column.is_(None) if holder is None else column == holder
        return self._update(sql.and_(same, self._table.c.expires == seen_expires), holder=self._worker, expires=expires)

    def _update(self, condition: Any, **values: Any) -> bool:
        with self._errors(), self._engine.begin() as connection:
            statement = self._table.update().where(self._table.c.study == self._name, condition).values(**values)
            return bool(connection.execute(statement).rowcount == 1)

    def _errors(self) -> AbstractContextManager[None]:
        return storage_errors(str(self._engine.url))


class FileLease(Lease):
    """A locked file beside a journal, for studies without a database.

    The kernel lets go of the lock when its holder dies, however it dies, so nothing expires.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        import fcntl  # not on every platform; journals are for shared disks of Unix machines

        with storage_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def renew(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
