"""The history of a target: kept in order whatever becomes of the clock, bounded, and never in the way when broken."""

from __future__ import annotations

import sqlite3

import pytest

from playbook.errors import UsageError
from playbook.file_store import FileStore
from playbook.monitor.history import History, Took
from playbook.monitor.sample import Sample
from playbook.monitor.trend import gaps, in_order, points
from playbook.target_store import TargetStore

DAY = 86_400.0


def sample(at, seconds=30.0, **figures):
    return Sample(at, seconds, {"db_calls": 10, "db_ms": 20.0, **figures})


@pytest.fixture(params=["file", "journal file", "target"])
def any_history(request, history, tmp_path, empty):
    """The history in each place that it may stand in."""
    if request.param == "file":
        return history
    if request.param == "journal file":
        return History(FileStore(tmp_path / "journal.sqlite", empty.connect))
    return History(TargetStore(empty.connect))


class TestPlaces:
    def test_what_is_kept_is_read_again(self, any_history):
        assert (any_history.samples(), any_history.slots(), any_history.texts()) == (([], 0), [], {})
        one = Sample(1000.0, 30.0, {"db_calls": 3}, {7: 2}, {}, ("pg_stat_statements was reset",))
        any_history.add(one, {"42": Took(3, 9.0, 5, 12)}, {"42": "SELECT ?"})
        any_history.add(sample(1030.0), {"42": Took(1, 1.0, 1, 4)}, {"42": "SELECT ?"})
        kept, last = any_history.samples()
        assert kept == [one, sample(1030.0)]
        assert any_history.samples(after=last) == ([], last)
        [slot] = any_history.slots()
        assert (slot.start, slot.seconds, slot.took) == (900.0, 60.0, {"42": Took(4, 10.0, 6, 16)})
        assert any_history.texts() == {"42": "SELECT ?"}

    def test_runs_are_kept_and_one_is_the_baseline(self, any_history):
        for number in range(3):
            any_history.keep_run(
                {"run_id": f"r{number}", "started_at": f"2026-11-2{number}T10:00:00+00:00"}, "proposals"
            )
        any_history.keep_run({"run_id": "other", "started_at": "2026-11-01T10:00:00+00:00"}, "shop")
        assert [run.run_id for run in any_history.runs("proposals")] == ["r2", "r1", "r0"]
        assert any_history.baseline("proposals").run_id == "r0", "the first one, until another is marked"
        any_history.keep_run({"run_id": "r1", "started_at": "2026-11-21T10:00:00+00:00"}, "proposals", baseline=True)
        assert any_history.baseline("proposals").run_id == "r1"
        assert any_history.baseline("shop").run_id == "other"
        assert any_history.baseline("none") is None
        assert any_history.results("r1")["run_id"] == "r1"
        assert any_history.results("never") is None


class TestBounds:
    def test_what_is_older_than_may_be_kept_goes(self, history):
        for number in range(21):
            history.add(sample(number * DAY), {"1": Took(1, 1.0, 1, 1)}, keep_s=5 * DAY)
        kept, last = history.samples()
        assert last == 21
        assert min(each.at for each in kept) >= 15 * DAY
        assert min(slot.start for slot in history.slots()) >= 15 * DAY

    def test_only_so_many_runs_are_kept_and_a_baseline_always(self, history, monkeypatch):
        monkeypatch.setattr("playbook.monitor.history.KEEP_RUNS", 10)
        for number in range(15):
            moment = f"2026-01-01T10:{number:02d}:00+00:00"
            history.keep_run({"run_id": f"r{number}", "started_at": moment}, "proposals", baseline=number == 0)
        kept = history.runs()
        assert (len(kept), kept[-1].run_id, kept[-2].run_id) == (11, "r0", "r5")


class TestFaults:
    @pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\x00" + b"\xff" * 5000])
    def test_a_broken_file_is_kept_aside_and_a_new_one_begun(self, history, content):
        history.file.parent.mkdir()
        history.file.write_bytes(content)
        history.add(sample(1000.0))
        assert len(history.samples()[0]) == 1
        [aside] = history.file.parent.glob("*.broken-*")
        assert aside.read_bytes() == content
        assert f"it is kept as {aside.name}, and a new one was begun" in history.said[0]

    def test_a_record_that_cannot_be_read_is_passed_over_and_told(self, history):
        history.add(sample(1000.0), {"1": Took(1, 1.0, 1, 1)})
        history.add(sample(1030.0))
        history.keep_run({"run_id": "r1", "started_at": "2026-01-01T10:00:00+00:00"}, "proposals")
        with sqlite3.connect(history.file) as connection:
            connection.execute("UPDATE sample SET body = '{\"v\": 99}' WHERE seq = 1")
            connection.execute("UPDATE usage SET body = 'gone'")
            connection.execute("UPDATE run SET body = 'gone'")
        connection.close()
        assert history.samples()[0] == [sample(1030.0)]
        assert history.slots() == []
        assert history.results("r1") is None
        assert len(history.said) == 3
        assert history.said[0].startswith("1 samples in file")

    def test_a_file_that_may_not_be_used_is_an_error_with_its_remedy(self, tmp_path):
        file = tmp_path / "history.sqlite"
        file.mkdir()
        with pytest.raises(UsageError, match="cannot be used"):
            History(FileStore(file), file).add(sample(1.0))


class TestTrend:
    def test_a_clock_that_went_back_leaves_the_order(self, history):
        for at in (1000.0, 1030.0, 400.0, 430.0, 1060.0):
            history.add(sample(at))
        assert [each.at for each in in_order(history.samples()[0])] == [1000.0, 1030.0, 1030.0, 1030.0, 1060.0]

    def test_samples_are_put_together_by_what_they_mean(self):
        taken = [
            Sample(
                10.0, 10.0, {"db_calls": 10, "db_ms": 100.0, "pool_mean_pct": 10.0, "pool_peak_pct": 90.0}, {20: 99}
            ),
            Sample(20.0, 30.0, {"db_calls": 30, "db_ms": 100.0, "pool_mean_pct": 50.0, "pool_peak_pct": 20.0}, {30: 1}),
        ]
        [point] = points(taken, 0.0, 30.0, 1)
        assert (point.samples, point.sum("db_calls"), point.db_average_ms) == (2, 40, 5.0)
        assert (point.mean("pool_mean_pct"), point.peak("pool_peak_pct"), point.per_second("db_calls")) == (40, 90, 1.0)
        assert point.request_ms(95) == 10.0
        assert point.cache_hit_pct is None
        assert point.db_average_ms == 5.0

    def test_a_time_without_samples_is_a_gap_and_no_zero(self):
        taken = [sample(30.0), sample(60.0), sample(600.0)]
        assert gaps(taken) == [(60.0, 570.0)]
        empty = points(taken, 0.0, 600.0, 20)[10]
        assert (empty.samples, empty.sum("db_calls"), empty.db_average_ms) == (0, None, None)
