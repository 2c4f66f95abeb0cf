"""The history of a target: samples, what its statements took, and what runs found. It stands with the journal.

On a target on which nothing may be written it is a file of this machine, in the playbook's home. A file that is broken
is kept aside and a new one begun; a record that cannot be read is passed over. Both are said.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from playbook.context import Context
from playbook.errors import UsageError
from playbook.file_store import FileStore
from playbook.monitor.sample import Sample
from playbook.results import Results, read
from playbook.stores import Store
from playbook.target.embedded import default_home

KEEP_DAYS = 30.0
"""For so long samples are kept, unless another time is asked for."""
KEEP_RUNS = 30
"""Runs whose results are kept; the oldest go first, a baseline never."""
SLOT_S = 300.0
"""What statements took is put together over so many seconds."""

_TABLES = {
    "sample": "seq bigint PRIMARY KEY, at double precision NOT NULL, body text NOT NULL",
    "usage": "slot double precision PRIMARY KEY, seconds double precision NOT NULL, body text NOT NULL",
    "usage_text": "queryid text PRIMARY KEY, text text NOT NULL",
    "run": "run_id text PRIMARY KEY, workload text NOT NULL, at double precision NOT NULL,"
    " baseline bigint NOT NULL, body text NOT NULL",
}


@dataclass(frozen=True)
class Took:
    """What one statement took in a span: calls, milliseconds, rows, blocks of shared buffers asked for."""

    calls: int = 0
    ms: float = 0.0
    rows: int = 0
    blocks: int = 0

    def __add__(self, other: Took) -> Took:
        return Took(self.calls + other.calls, self.ms + other.ms, self.rows + other.rows, self.blocks + other.blocks)

    @property
    def mean_ms(self) -> float:
        """Milliseconds a call."""
        return self.ms / self.calls if self.calls else 0.0


@dataclass(frozen=True)
class Slot:
    """What statements took in the `seconds` of a slot that were watched; it begins at `start`. Keys are queryids."""

    start: float
    seconds: float
    took: Mapping[str, Took]


@dataclass(frozen=True)
class KeptRun:
    """A run whose results are kept; it began `at` seconds of the epoch."""

    run_id: str
    workload: str
    at: float
    baseline: bool


@dataclass
class History:
    """The history in one place. Reading one that was never made yields nothing and makes nothing.

    `said` is what a person should know of it: that a broken file was set aside, that records could not be read.
    """

    store: Store
    file: Path | None = None
    said: list[str] = field(default_factory=list)
    _stands: bool = False
    _looked_at: bool = False

    @property
    def place(self) -> str:
        """Where it stands, in words that hold no path of this machine where it is not one that somebody named."""
        return f"file {self.file.name} in PLAYBOOK_HOME" if self.file else self.store.place

    def add(
        self,
        sample: Sample,
        took: Mapping[str, Took] | None = None,
        texts: Mapping[str, str] | None = None,
        *,
        slot_s: float = SLOT_S,
        keep_s: float = KEEP_DAYS * 86_400,
    ) -> None:
        """Adds a sample with what its statements took, whole or not at all, and forgets what may not be kept longer.

        Samples are numbered: that order holds, whatever becomes of the clock. `texts` are new ones, masked already;
        `took` is None where statements were not counted.
        """
        prefix = self.store.prefix
        with self._session(make=True) as execute:
            [[last]] = execute(f"SELECT coalesce(max(seq), 0) FROM {prefix}sample")
            execute(f"INSERT INTO {prefix}sample VALUES (?, ?, ?)", (last + 1, sample.at, sample.dump()))
            for text in (texts or {}).items():
                execute(f"INSERT INTO {prefix}usage_text VALUES (?, ?) ON CONFLICT (queryid) DO NOTHING", text)
            if took is not None:
                self._take(execute, sample, took, slot_s)
            if last % 20 == 0:  # now and then is enough
                for table, column in (("sample", "at"), ("usage", "slot")):
                    execute(f"DELETE FROM {prefix}{table} WHERE {column} < ?", (sample.at - keep_s,))

    def _take(self, execute: Any, sample: Sample, took: Mapping[str, Took], slot_s: float) -> None:
        """Adds what statements took to the slot in which the sample ended."""
        table, start = f"{self.store.prefix}usage", sample.at - sample.at % slot_s
        rows = execute(f"SELECT seconds, body FROM {table} WHERE slot = ?", (start,))
        before = _took(rows[0][1]) if rows else {}
        merged = {key: before.get(key, Took()) + took.get(key, Took()) for key in {**before, **took}}
        body = json.dumps({key: [t.calls, round(t.ms, 3), t.rows, t.blocks] for key, t in merged.items()})
        execute(f"DELETE FROM {table} WHERE slot = ?", (start,))
        seconds = sample.seconds + (rows[0][0] if rows else 0.0)
        execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (start, seconds, body))

    def samples(self, since: float = 0.0, after: int = 0) -> tuple[list[Sample], int]:
        """The samples from a moment on in the order they were taken, and the number of the last one.

        `after` is such a number: with it only what was added since is read.
        """
        sql = f"SELECT seq, at, body FROM {self.store.prefix}sample WHERE at >= ? AND seq > ? ORDER BY seq"
        found, last, broken = [], after, 0
        for seq, at, body in self._read(sql, (since, after)):
            last = seq
            try:
                found.append(Sample.load(at, body))
            except ValueError:
                broken += 1
        self._say_broken(broken, "samples")
        return found, last

    def slots(self, since: float = 0.0, until: float = float("inf")) -> list[Slot]:
        """What statements took, slot by slot."""
        sql = f"SELECT slot, seconds, body FROM {self.store.prefix}usage WHERE slot >= ? AND slot < ? ORDER BY slot"
        found, broken = [], 0
        for start, seconds, body in self._read(sql, (since, min(until, 1e15))):
            if (took := _took(body)) or body == "{}":
                found.append(Slot(start, seconds, took))
            else:
                broken += 1
        self._say_broken(broken, "records of statements")
        return found

    def texts(self) -> dict[str, str]:
        """The texts that were kept."""
        return dict(self._read(f"SELECT queryid, text FROM {self.store.prefix}usage_text"))

    def keep_run(self, results: Mapping[str, Any], workload: str, *, baseline: bool = False) -> None:
        """Keeps what a run found, and forgets the oldest beyond `KEEP_RUNS`; a baseline takes the place of the last."""
        table = f"{self.store.prefix}run"
        at = datetime.fromisoformat(results["started_at"]).timestamp()
        with self._session(make=True) as execute:
            if baseline:
                execute(f"UPDATE {table} SET baseline = 0 WHERE workload = ?", (workload,))
            execute(f"DELETE FROM {table} WHERE run_id = ?", (results["run_id"],))
            values = (results["run_id"], workload, at, int(baseline), _packed(results))
            execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", values)
            newest = f"SELECT run_id FROM {table} ORDER BY at DESC LIMIT {KEEP_RUNS}"
            execute(f"DELETE FROM {table} WHERE baseline = 0 AND run_id NOT IN ({newest})")

    def runs(self, workload: str | None = None) -> list[KeptRun]:
        """The runs that are kept, the latest first."""
        sql = f"SELECT run_id, workload, at, baseline FROM {self.store.prefix}run ORDER BY at DESC"
        kept = [KeptRun(run_id, about, at, bool(baseline)) for run_id, about, at, baseline in self._read(sql)]
        return [run for run in kept if workload in (None, run.workload)]

    def results(self, run_id: str) -> dict[str, Any] | None:
        """What a run found, as results.json has it; None of a run that is not kept, or cannot be read."""
        rows = self._read(f"SELECT body FROM {self.store.prefix}run WHERE run_id = ?", (run_id,))
        try:
            return _unpacked(rows[0][0]) if rows else None
        except ValueError:
            self._say_broken(1, "runs")
            return None

    def baseline(self, workload: str) -> KeptRun | None:
        """The run that later ones are held against: the one that was marked, else the first that was kept."""
        kept = self.runs(workload)
        return next((run for run in kept if run.baseline), kept[-1] if kept else None)

    def _say_broken(self, broken: int, what: str) -> None:
        if (
            broken
            and (said := f"{broken:,} {what} in {self.place} cannot be read and were passed over") not in self.said
        ):
            self.said.append(said)

    def _read(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._session(make=False) as execute:
            return execute(sql, tuple(values)) if execute else []

    @contextmanager
    def _session(self, *, make: bool) -> Iterator[Any]:
        """A transaction with the tables there, or with None where they are not and need not be."""
        if self.file is not None:
            self._look_at(self.file)
        if not self._stands and not self.store.has("run"):
            if not make:
                yield None
                return
            self._make()
        self._stands = True
        with self.store.session() as execute:
            yield execute

    def _make(self) -> None:
        if self.file is not None:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not self.store.exists():
            self.store.create()
        with self.store.session() as execute:
            for name, columns in _TABLES.items():
                execute(f"CREATE TABLE IF NOT EXISTS {self.store.prefix}{name} ({columns})")

    def _look_at(self, file: Path) -> None:
        """Once: a file that SQLite cannot read is renamed, and the next one begins empty."""
        if self._looked_at or not file.exists():
            self._stands = self._stands and file.exists()
            return
        self._looked_at = True
        if _broken(file):
            aside = file.with_name(f"{file.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            file.rename(aside)
            self.said.append(f"the history {file} was broken: it is kept as {aside.name}, and a new one was begun")


def _broken(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file, timeout=30)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]
    except sqlite3.OperationalError:
        return False  # locked, or may not be opened: that is told when it is used
    except sqlite3.DatabaseError:
        return True


def open_history(context: Context, *, make: bool = False) -> History:
    """The history of the target that was opened: with its journal where that may be written, else in a file.

    A journal that does not stand yet is made for it only where `make` says so.
    """
    settings, store = context.settings, context.journal.store
    if settings.journal or (settings.applies and (store.exists() or (make and not store.obstacles()))):
        return History(store)
    file = local_file(context)
    return History(FileStore(file, context.target.connect), file)


def baseline_of(context: Context) -> Results:
    """What the run found that later ones of the plan are held against, on the target that was opened.

    Raises:
        UsageError: none is kept, or it cannot be read.
    """
    history = open_history(context)
    kept = history.baseline(context.plan.name)
    if kept is None:
        raise UsageError(f"no run of the plan {context.plan.name} is kept in {history.place}: run it once")
    if (found := history.results(kept.run_id)) is None:
        raise UsageError(f"run {kept.run_id}, kept in {history.place}, cannot be read: playbook run --baseline")
    return read(found)


def local_file(context: Context) -> Path:
    """Where the history of a target stands on which nothing may be written: by its label, which holds no password."""
    label = context.target.label
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", label).strip("-")[:60]
    return default_home() / "history" / f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:10]}.sqlite"


def _packed(results: Mapping[str, Any]) -> str:
    """The rounds of every query are in it: a tenth of the room is enough."""
    return base64.b64encode(zlib.compress(orjson.dumps(results))).decode("ascii")


def _unpacked(body: str) -> dict[str, Any]:
    """What `_packed` made.

    Raises:
        ValueError: it is something else.
    """
    try:
        return orjson.loads(zlib.decompress(base64.b64decode(body, validate=True)))
    except zlib.error as error:
        raise ValueError(str(error)) from None


def _took(body: str) -> dict[str, Took]:
    try:
        return {key: Took(*counts) for key, counts in json.loads(body).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
