"""The ledger: which runs were accepted, and which outputs were published, durably and once.

A SQLite database in WAL mode with `synchronous=FULL`, beside a folder with one file for each
publication. Durable commits are the acceptance of a run, its publication, and its failure; steps
are not recorded. Only runs whose caller named them are here: nobody can ask again for a run
without a name, so recording it would cost two disk flushes for nothing.

Order at publication: private file, fsync, rename, fsync of the folder, commit. A crash in
between leaves a file that no record names; it is removed when its owner is found dead.

Every process that opens the ledger gets an *epoch*, one higher than any before, and holds a lock
on `owners/<epoch>.lock` while it lives. A record that is `accepted` belongs to its epoch; when
that owner is dead the run may be taken over with the next attempt number, and from then on the
earlier owner can no longer publish, because a publication names its epoch and attempt.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from genie_runtime import outputs as output_files
from genie_runtime.faults import reach
from genie_runtime.ledger_rules import RunKey, check_same, fenced, storage_error
from genie_runtime.outputs import OutputRecord, StoredOutputs
from genie_runtime.owners import Owners
from genie_schemas.errors import GenieError, Place

FORMAT = 1
_BUSY_MS = 10_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY,
    plan_digest TEXT NOT NULL,
    entrypoint TEXT NOT NULL,
    inputs_digest TEXT NOT NULL,
    threads INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'published', 'failed', 'evicted')),
    epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    publications INTEGER NOT NULL DEFAULT 0,
    accepted_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    file TEXT,
    bytes INTEGER NOT NULL DEFAULT 0,
    digest TEXT,
    outputs TEXT,
    error TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS runs_ended ON runs (state, ended_ms);
"""

T = TypeVar("T")


@dataclass(frozen=True)
class Recall:
    """What the ledger knows of a run.

    `new`: it may run. `running`: a live owner is at it. `recorded`: `stored` holds its outputs.
    """

    state: Literal["new", "running", "recorded"]
    stored: StoredOutputs | None = None


@dataclass(frozen=True)
class Acceptance:
    """The right to run, and to publish, one attempt; `recorded` when it was published before."""

    key: RunKey
    epoch: int
    attempt: int
    recorded: bool = False


class Ledger:
    """One open ledger. Thread-safe; several processes may have the same one open.

    Every method raises GenieError GEN0506 when the disk refuses to store, GEN0507 when the
    database cannot be read.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 1 << 30, max_age: float = 7 * 86400.0):
        self.folder = folder
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._files = folder / "outputs"
        self._owners = Owners(folder / "owners")
        self._lock = threading.Lock()
        self._active: set[str] = set()
        with self._storing():
            for part in (folder, self._files, self._owners.folder):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                folder / "ledger.sqlite",
                timeout=_BUSY_MS / 1000,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            self._open_database()
            self.epoch = self._begin_epoch()
        except BaseException:
            self._db.close()
            raise

    # -- runs -------------------------------------------------------------------------------

    def recall(self, key: RunKey) -> Recall:
        """What is known of `key`; GEN0410 when its id means something else, GEN0411 if evicted."""
        with self._lock, self._storing():
            row = self._row(key.run_id)
        if row is None:
            return Recall("new")
        check_same(dict(row), key)
        if row["state"] == "published":
            return Recall("recorded", self._stored(row))
        if row["state"] == "accepted" and self._running(row):
            return Recall("running")
        return Recall("new")

    def accept(self, key: RunKey, threads: int) -> Acceptance | None:
        """Record that an attempt begins; None when a live owner is running it already.

        `threads` is recorded because results depend on it in their last bits. A run that was
        published is accepted again without a new record: it may be recomputed for the sake of
        another daemon, but never published twice.
        """
        with self._lock:
            acceptance = self._accept(key, threads)
            if acceptance is not None and not acceptance.recorded:
                self._active.add(key.run_id)  # before anybody else can look at the record
        reach("accept.after_commit")
        return acceptance

    def _accept(self, key: RunKey, threads: int) -> Acceptance | None:
        with self._transaction():
            row = self._row(key.run_id)
            if row is not None:
                check_same(dict(row), key)
                if row["state"] == "published":
                    return Acceptance(key, row["epoch"], row["attempt"], recorded=True)
                if row["state"] == "accepted" and self._running(row):
                    return None
            attempt = 1 if row is None else row["attempt"] + 1
            self._db.execute(
                "INSERT INTO runs (run_id, plan_digest, entrypoint, inputs_digest, threads, state,"
                " epoch, attempt, accepted_ms) VALUES (?, ?, ?, ?, ?, 'accepted', ?, ?, ?)"
                " ON CONFLICT (run_id) DO UPDATE SET state='accepted', epoch=excluded.epoch,"
                " attempt=excluded.attempt, threads=excluded.threads,"
                " accepted_ms=excluded.accepted_ms, error=NULL, ended_ms=NULL",
                (
                    key.run_id,
                    key.plan_digest,
                    key.entrypoint,
                    key.inputs_digest,
                    threads,
                    self.epoch,
                    attempt,
                    _now_ms(),
                ),
            )
            reach("accept.before_commit")
        return Acceptance(key, self.epoch, attempt)

    def publish(self, acceptance: Acceptance, outputs: Sequence[OutputRecord]) -> StoredOutputs:
        """Make the outputs durable under the run's id, once; return what is recorded.

        When another attempt published first, its outputs are returned and these are dropped.
        Raises GEN0415 when the attempt was fenced out and nothing is recorded.
        """
        key = acceptance.key
        if acceptance.recorded:
            recall = self.recall(key)
            if recall.stored is None:
                raise fenced(key)
            return recall.stored
        try:
            return self._publish(acceptance, outputs)
        finally:
            self._active.discard(key.run_id)

    def _publish(self, acceptance: Acceptance, outputs: Sequence[OutputRecord]) -> StoredOutputs:
        key = acceptance.key
        name = output_files.file_name(key.run_id, acceptance.epoch, acceptance.attempt)
        reach("publish.before_file")
        with self._storing():
            nbytes, digest = output_files.write(self._files, name, outputs)
        described = output_files.describe(outputs)
        try:
            with self._lock, self._transaction():
                done = self._db.execute(
                    "UPDATE runs SET state='published', publications=publications+1, ended_ms=?,"
                    " file=?, bytes=?, digest=?, outputs=?"
                    " WHERE run_id=? AND state='accepted' AND epoch=? AND attempt=?",
                    (
                        *(_now_ms(), name, nbytes, digest, described),
                        *(key.run_id, acceptance.epoch, acceptance.attempt),
                    ),
                )
                reach("publish.before_commit")
        finally:
            self._drop_unnamed(key.run_id, name)
        reach("publish.after_commit")
        recall = self.recall(key)
        if recall.stored is None:
            raise fenced(key)
        if done.rowcount == 1:
            self.sweep(keep=key.run_id)
        return recall.stored

    def _drop_unnamed(self, run_id: str, name: str) -> None:
        """Remove an outputs file unless the record names it; a full disk needs the room now."""
        with contextlib.suppress(sqlite3.Error, OSError), self._lock:
            row = self._row(run_id)
            if row is None or row["file"] != name:
                (self._files / name).unlink(missing_ok=True)

    def fail(self, acceptance: Acceptance, error: GenieError) -> None:
        """Record that an attempt failed, so that the run may be tried again under its id."""
        if acceptance.recorded:
            return
        self._active.discard(acceptance.key.run_id)
        text = json.dumps(error.to_json(), ensure_ascii=True, default=str)
        with self._lock, self._transaction():
            self._db.execute(
                "UPDATE runs SET state='failed', ended_ms=?, error=?"
                " WHERE run_id=? AND state='accepted' AND epoch=? AND attempt=?",
                (_now_ms(), text, acceptance.key.run_id, acceptance.epoch, acceptance.attempt),
            )
            reach("fail.before_commit")
        reach("fail.after_commit")

    def sweep(self, keep: str | None = None) -> int:
        """Evict recorded results beyond the limits of size and age, oldest first; how many.

        The run `keep`, just published, stays even when it alone exceeds the size limit.
        """
        with self._lock, self._storing():
            rows = self._db.execute(
                "SELECT run_id, file, bytes, ended_ms FROM runs WHERE state='published'"
                " ORDER BY ended_ms DESC, rowid DESC"
            ).fetchall()
        horizon, total, evicted = _now_ms() - int(self.max_age * 1000), 0, 0
        for row in rows:
            total += row["bytes"]
            if row["run_id"] == keep or (total <= self.max_bytes and row["ended_ms"] >= horizon):
                continue
            with self._lock, self._transaction():
                self._db.execute(
                    "UPDATE runs SET state='evicted' WHERE run_id=? AND state='published'",
                    (row["run_id"],),
                )
                reach("evict.before_commit")
            reach("evict.after_commit")
            with self._storing():
                (self._files / row["file"]).unlink(missing_ok=True)
            total -= row["bytes"]
            evicted += 1
        return evicted

    def rows(self) -> list[dict[str, Any]]:
        """Every record as plain values, by run id: for tests and for looking inside."""
        with self._lock, self._storing():
            found = self._db.execute("SELECT * FROM runs ORDER BY run_id").fetchall()
        return [dict(row) for row in found]

    def close(self) -> None:
        """Close the database and give the epoch up; unfinished acceptances become free."""
        with self._lock:
            self._db.close()
            self._owners.end()

    # -- inside -----------------------------------------------------------------------------

    def _open_database(self) -> None:
        try:
            self._db.row_factory = sqlite3.Row
            self._db.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._retry_busy(lambda: self._db.executescript(_SCHEMA))
            row = self._db.execute("SELECT value FROM meta WHERE key='format'").fetchone()
        except sqlite3.DatabaseError as error:
            raise storage_error(self.folder, error) from None
        if row is not None and row["value"] > FORMAT:
            raise GenieError(
                "GEN0507",
                f"the ledger has format {row['value']}; this version reads up to {FORMAT}",
                Place(file=str(self.folder / "ledger.sqlite")),
                "a newer version wrote it",
                "upgrade with `pip install --upgrade genie-plan`, or name another --state-dir",
            )

    def _retry_busy(self, act: Callable[[], T]) -> T:
        """Repeat: `executescript` ignores the busy timeout while another makes the schema."""
        end = time.monotonic() + _BUSY_MS / 1000
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _begin_epoch(self) -> int:
        with self._lock, self._transaction():
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', 0)")
            self._db.execute("UPDATE meta SET value=value+1 WHERE key='epoch'")
            epoch = int(
                self._db.execute("SELECT value FROM meta WHERE key='epoch'").fetchone()["value"]
            )
            # Locked before the commit: nobody ever sees this epoch without a live owner.
            self._owners.begin(epoch)
            self._remove_orphans(epoch)
        return epoch

    def _remove_orphans(self, mine: int) -> None:
        """Delete the unrecorded files of dead owners, then their locks."""
        named = {
            row["file"] for row in self._db.execute("SELECT file FROM runs WHERE state='published'")
        }
        dead = self._owners.dead(mine)
        for path in list(self._files.iterdir()):
            epoch = output_files.epoch_of(path.name)
            if epoch is None or epoch == mine or path.name in named:
                continue
            if epoch in dead or not self._owners.known(epoch):
                path.unlink(missing_ok=True)
        self._owners.bury(dead)

    def _running(self, row: sqlite3.Row) -> bool:
        """Whether somebody is at an accepted run: this process, or another that lives."""
        if row["epoch"] == self.epoch:
            return row["run_id"] in self._active
        return self._owners.alive(row["epoch"])

    def _row(self, run_id: str) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._db.execute(
            "SELECT * FROM runs WHERE run_id=?", (run_id,)
        ).fetchone()
        return found

    def _stored(self, row: sqlite3.Row) -> StoredOutputs:
        return StoredOutputs(
            self._files / row["file"], row["digest"], output_files.parse(row["outputs"])
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._storing():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise storage_error(self.folder, error) from None


def _now_ms() -> int:
    return int(time.time() * 1000)
