"""Old partitions are detached, wait, are looked at again, and only then dropped; nothing is lost that somebody still wants."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, date, datetime, timedelta

import pytest

from playbook import finishing, maintaining, undoing
from playbook.changes.partitioning.periods import Period, Span
from playbook.detachments import Detachments
from playbook.errors import PlanError

JUNE = datetime(2050, 6, 15, 12, tzinfo=UTC)
AFTER_GRACE = datetime(2050, 6, 22, 12, tzinfo=UTC)
RETENTION = "retention: 3 months\n        grace: 7 days"


@pytest.fixture
def kept_for(ledger):
    """The ledger partitioned from 2050 on by a plan with these lines more; two rows in each of the first months."""

    def make(*lines, months=5):
        more = "\n        ".join(("every: month", "cutoff: 2050-01-01", "ahead: 1", *lines))
        ledger.plan.write_text(ledger.plan.read_text().replace("every: month", more))
        ((_, state, _),) = ledger.playbook().phase("1").apply().steps
        assert state.status == "applied", state.reason
        ledger.execute("SET TimeZone = 'UTC'" + "".join(
            f"; CREATE TABLE entries_2050_{month:02} PARTITION OF entries FOR VALUES FROM ('2050-{month}-1') "
            f"TO ('{Period(date(2050, month, 1), 'month').end}')" for month in range(2, 13)))  # fmt: skip
        ledger.execute("INSERT INTO entries (note, at) SELECT 'in ' || m, make_timestamptz(2050, m, d, 0, 0, 0, 'UTC') "
                       "FROM generate_series(1, %s) m, generate_series(1, 2) d", months)  # fmt: skip
        return ledger

    return make


def maintain(shop, now=JUNE, **options):
    """What became of old partitions, by name."""
    (one,) = maintaining.maintain(shop.context(), now, **options)
    return {retired.partition.removeprefix("public."): retired.said for retired in one.retired}


def stand(shop):
    """The partitions, and the tables that were ones."""
    found = shop.execute(
        "SELECT relname, relispartition FROM pg_class WHERE relname ~ '^entries_2050_..$' AND relkind = 'r'"
    )
    return {name for name, attached in found if attached}, {name for name, attached in found if not attached}


def record(shop):
    return {one.relation: one.state for one in Detachments(shop.context().journal.store).of("public.entries")}


def test_nothing_is_ever_removed_unless_the_plan_says_so(kept_for):
    shop = kept_for()
    assert maintain(shop, datetime(2050, 12, 1, tzinfo=UTC)) == {}
    assert stand(shop)[1] == set()


def test_old_partitions_are_detached_wait_and_are_dropped_with_their_rows_exported(kept_for, tmp_path):
    shop = kept_for(RETENTION)
    would = maintain(shop, dry_run=True)
    assert would == {
        "entries_2050_01": "would be detached: all of it is before 2050-02-01",
        "entries_2050_02": "would be detached: all of it is before 2050-03-01",
        "entries_history": "is left alone whatever its age: it is the table as it was, which undo returns",
    }
    assert (stand(shop)[1], record(shop)) == (set(), {})

    done = maintain(shop)
    assert done["entries_2050_01"] == "detached with 2 rows, to be dropped from 2050-06-22 on"
    assert stand(shop)[1] == {"entries_2050_01", "entries_2050_02"}
    assert record(shop) == {"public.entries_2050_01": "detached", "public.entries_2050_02": "detached"}
    assert shop.execute("SELECT count(*) FROM entries WHERE at >= '2050-01-01'") == [(6,)]

    assert maintain(shop)["entries_2050_01"] == "is detached until 2050-06-22"
    assert maintain(shop, AFTER_GRACE, dry_run=True)["entries_2050_02"] == "would be dropped (2 rows)"
    assert stand(shop)[1] == {"entries_2050_01", "entries_2050_02"}

    held = shop.execute("SELECT id::text, note FROM entries_2050_01 ORDER BY id")
    done = maintain(shop, AFTER_GRACE, export=tmp_path / "old")
    assert done["entries_2050_01"].startswith(
        f"dropped, 2 rows; they are in {tmp_path / 'old'}/public.entries_2050_01."
    )
    (path,) = (tmp_path / "old").glob("public.entries_2050_01.*.csv.gz")
    with gzip.open(path, "rt", newline="") as file:
        assert [(row["id"], row["note"]) for row in csv.DictReader(file)] == held
    assert stand(shop)[1] == set()
    assert set(record(shop).values()) == {"dropped"}
    assert set(maintain(shop, AFTER_GRACE)) == {"entries_history"}
    assert [one.error for one in undoing.undo(shop.context())] == [""]
    assert shop.execute("SELECT count(*) FROM entries WHERE at >= '2050-01-01'") == [(6,)]


CHANGES = (
    ("INSERT INTO {it} (id, note, at) VALUES (-1, 'late', '2050-01-05 00:00+00')", "held 2 rows and holds 3"),
    ("INSERT INTO {it} (id, note, at) VALUES (-2, 'late', '2050-12-01 00:00+00')", "1 row(s) from outside"),
    ("UPDATE {it} SET note = note || '.' WHERE id = (SELECT min(id) FROM {it})", "holds other rows"),
    ("GRANT SELECT ON {it} TO ledger_auditor", "is defined otherwise"),
    ("CREATE VIEW bound AS SELECT * FROM {it}", "other objects depend on it"),
    ("ALTER TABLE {it} ADD UNIQUE (id); CREATE TABLE refers (id bigint REFERENCES {it} (id))", "is referred to by"),
    ("ALTER TABLE {it} RENAME TO elsewhere; CREATE TABLE {it} (LIKE elsewhere)", "is not the table that was detached"),
)


def test_what_was_changed_since_it_was_detached_is_not_dropped(kept_for):
    """A partition each, and one that nobody touched."""
    shop = kept_for(RETENTION, months=8)
    maintain(shop, datetime(2050, 12, 1, tzinfo=UTC))
    names = [f"entries_2050_{month:02}" for month in range(1, 9)]
    assert stand(shop)[1] == set(names)
    for name, (sql, _) in zip(names, CHANGES, strict=False):
        shop.execute(sql.format(it=name))
    (one,) = maintaining.maintain(shop.context(), datetime(2050, 12, 8, tzinfo=UTC))
    told = {retired.partition.removeprefix("public."): retired for retired in one.retired if retired.failed}
    assert list(told) == names[:-1]
    for name, (_, said) in zip(names, CHANGES, strict=False):
        assert said in told[name].said, told[name]
    assert one.failed
    assert stand(shop)[1] == set(names[:-1])


def test_months_that_a_history_was_split_into_are_retired_once_undo_cannot_return_it(attached):
    shop, july = attached, datetime(2026, 7, 1, tzinfo=UTC)
    shop.plan.write_text(shop.plan.read_text().replace("every: month", f"every: month\n        {RETENTION}"))
    (split,) = finishing.finish(shop.context(), apply=True)
    assert (split.error, split.said) == ("", finishing.SPLIT)
    waits = "is left alone with its partitions until `playbook finish` has given up public.entries_history"
    assert maintain(shop, july) == {"entries_history_partitioned": f"{waits}, which undo returns"}
    written = shop.execute("SELECT id FROM entries WHERE at >= '2026-04-01Z' ORDER BY id")
    finishing.finish(shop.context(), apply=True)
    done = maintain(shop, july)
    assert done.pop("entries_before_2026_01").startswith("is left alone: it has no beginning")
    assert {name: said.partition(" with")[0] for name, said in done.items()} == {
        f"entries_2026_{month:02}": "detached" for month in range(1, 4)
    }
    assert shop.execute("SELECT id FROM entries ORDER BY id") == written
    assert maintain(shop, july + timedelta(days=8))["entries_2026_01"].startswith("dropped, ")
    assert shop.execute("SELECT to_regclass('entries_2026_01'), count(*) FROM entries") == [(None, len(written))]


def test_months_that_were_copied_are_retired_once_undo_cannot_return_the_table(copied):
    shop, july = copied, datetime(2026, 7, 1, tzinfo=UTC)
    shop.plan.write_text(shop.plan.read_text().replace("every: month", f"every: month\n        {RETENTION}"))
    ((_, state, _),) = shop.playbook().phase("1").apply().steps
    assert state.status == "applied", state.reason
    waits = "is left alone with its partitions until `playbook finish` has given up public.entries_unpartitioned"
    assert maintain(shop, july) == {"entries": f"{waits}, which undo returns"}
    finishing.finish(shop.context(), apply=True)
    done = {name: said.partition(" with")[0] for name, said in maintain(shop, july).items()}
    assert {name for name, said in done.items() if said == "detached"} >= {"entries_2026_01", "entries_2026_03"}
    assert "entries_2026_04" not in done


@pytest.mark.exhaustive
def test_one_that_somebody_attached_again_starts_its_grace_anew(kept_for):
    shop = kept_for(RETENTION)
    maintain(shop)
    shop.execute("ALTER TABLE entries ATTACH PARTITION entries_2050_01 "
                 "FOR VALUES FROM ('2050-01-01 00:00+00') TO ('2050-02-01 00:00+00')")  # fmt: skip
    assert maintain(shop, AFTER_GRACE)["entries_2050_01"].endswith("to be dropped from 2050-06-29 on")


def test_without_a_default_partition_readers_and_writers_go_on_while_it_is_detached(kept_for):
    shop = kept_for(RETENTION, "beyond: refuse")
    with shop.target.connect() as writer:
        writer.execute("BEGIN")
        writer.execute("INSERT INTO entries (at) VALUES ('2050-05-05 00:00+00')")
        # One that was interrupted between its two transactions.
        with shop.target.connect() as other:
            other.execute("SET statement_timeout = '300ms'")
            with pytest.raises(Exception, match="statement timeout"):
                other.execute("ALTER TABLE entries DETACH PARTITION entries_2050_01 CONCURRENTLY")
        writer.execute("COMMIT")
    assert shop.execute("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == [(1,)]
    assert maintain(shop)["entries_2050_01"].startswith("detached with 2 rows")
    assert stand(shop)[1] == {"entries_2050_01", "entries_2050_02"}
    assert maintain(shop, AFTER_GRACE)["entries_2050_02"] == "dropped, 2 rows"


@pytest.mark.parametrize(
    ("write", "after"),
    [
        (0, True),
        *(
            pytest.param(write, after, marks=pytest.mark.exhaustive)
            for write in range(8)
            for after in (False, True)
            if (write, after) != (0, True)
        ),
    ],
)
def test_killed_anywhere_it_goes_on_and_drops_nothing_that_it_did_not_record(kept_for, monkeypatch, write, after):
    """A detachment writes twice, a drop twice more; each of the two partitions in its turn."""

    class Killed(BaseException):
        """As a kill would, it runs through every handler of errors."""

    shop = kept_for(RETENTION)
    written, keep = [], Detachments.write

    def killing(self, one):
        written.append(one)
        if len(written) == write + 1 and not after:
            raise Killed
        keep(self, one)
        if len(written) == write + 1 and after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Detachments, "write", killing)
        with pytest.raises(Killed):
            [maintain(shop, now) for now in (JUNE, AFTER_GRACE)]
    _, apart = stand(shop)
    names = {"entries_2050_01", "entries_2050_02"}
    assert apart <= {name.removeprefix("public.") for name in record(shop)}
    assert shop.execute("SELECT count(*) FROM entries WHERE at >= '2050-03-01'") == [(6,)]
    assert set(maintain(shop, AFTER_GRACE, dry_run=True)) <= {*names, "entries_history"}
    maintain(shop, AFTER_GRACE)
    maintain(shop, datetime(2050, 6, 30, tzinfo=UTC))
    assert stand(shop)[1] == set()
    assert set(record(shop).values()) == {"dropped"}
    assert shop.execute("SELECT count(*) FROM entries WHERE at >= '2050-03-01'") == [(6,)]


@pytest.mark.exhaustive
def test_with_the_journal_in_a_file_the_record_is_there_too(ledger):
    ledger.plan.write_text(ledger.plan.read_text().replace(
        "every: month", f"every: day\n        cutoff: 2050-01-01\n        ahead: 1\n        {RETENTION}"))  # fmt: skip
    path = ledger.folder / "journal.sqlite"
    ledger.playbook(journal=path).phase("1").apply()
    april = datetime(2050, 4, 3, tzinfo=UTC)
    ledger.execute("SET TimeZone = 'UTC'; CREATE TABLE entries_far PARTITION OF entries "
                   "FOR VALUES FROM ('2050-01-02') TO ('2050-12-01')")  # fmt: skip
    for now in (april, april + timedelta(days=7)):
        (one,) = maintaining.maintain(ledger.context(journal=path), now)
        assert not one.failed, one
    assert {one.state for one in Detachments(ledger.context(journal=path).journal.store).of("public.entries")} == {
        "dropped"
    }
    assert ledger.execute("SELECT to_regnamespace('playbook')") == [(None,)]


def test_a_length_of_time_is_a_number_and_a_unit(ledger):
    assert Span.parse("24 months").before(datetime(2026, 2, 28).date()).isoformat() == "2024-02-28"
    assert Span.parse("1 month").before(datetime(2026, 3, 31).date()).isoformat() == "2026-02-28"
    assert Span.parse("2 weeks").before(datetime(2026, 1, 3).date()).isoformat() == "2025-12-20"
    assert [str(Span.parse(text)) for text in ("1 day", "3 quarters", "7 years")] == ["1 day", "3 quarters", "7 years"]
    ledger.plan.write_text(ledger.plan.read_text().replace("every: month", "every: month\n        retention: forever"))
    with pytest.raises(PlanError, match=r"retention.*'forever' is no length of time: write it like 24 months"):
        ledger.context()
