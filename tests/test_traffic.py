"""A step's verdict from real traffic: statements before and after it, held against those that it cannot affect."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager

import pytest

from playbook.errors import UsageError
from playbook.monitor.history import Slot, Took
from playbook.monitor.traffic import affected_by, judge_traffic
from playbook.monitor.watching import Watching
from playbook.plan.schedule import every

TEXTS = {"1": "SELECT * FROM orders WHERE status = $1", **{str(n): f"SELECT {n} FROM customers" for n in range(2, 8)}}


def affected(text):
    return "orders" in text


def slots(seed, ms=5.0, pace=1.0, rows=10, calls=50, number=60, blocks=100):
    """Slots of five minutes of one statement on orders and six controls, as a machine of `pace` runs them."""
    draw = random.Random(seed)

    def took(mean, many=calls):
        return Took(many, many * pace * mean * draw.lognormvariate(0, 0.08), many * rows, many * blocks)

    return [
        Slot(300.0 * n, 300.0, {"1": took(ms), **{key: took(2.0) for key in TEXTS if key != "1"}})
        for n in range(number)
    ]


def judged(before, after):
    [found] = judge_traffic("1/orders_open", before, after, TEXTS, affected).statements
    return found


class TestVerdict:
    def test_a_statement_that_takes_half_is_faster_and_its_mirror_slower(self):
        found = judged(slots(1, ms=10), slots(2, ms=5))
        assert found.verdict == "faster"
        assert 1.9 < found.speedup < 2.1
        assert found.ci95[0] < found.speedup < found.ci95[1]
        assert judged(slots(1, ms=5), slots(2, ms=10)).verdict == "slower"

    def test_what_did_not_change_is_no_gain(self):
        assert judged(slots(3), slots(4)).verdict == "no gain"
        assert "undo" in judge_traffic("s", slots(3), slots(4), TEXTS, affected).advice

    def test_fewer_buffers_keep_a_gain_from_being_denied(self):
        assert judged(slots(1, blocks=1000), slots(2, blocks=10)).verdict == "unproven"

    def test_a_faster_machine_is_not_a_faster_statement(self):
        assert judged(slots(1, pace=1.2), slots(2)).verdict not in {"faster", "slower"}
        assert judged(slots(1, pace=2.0), slots(2)).verdict == "unstable"

    def test_calls_that_ask_for_something_else_are_not_compared(self):
        found = judged(slots(1, ms=10, rows=50), slots(2, ms=5, rows=10))
        assert found.verdict == "unstable"
        assert "returned 50.0 rows each before and 10.0 after" in found.reason

    def test_too_little_traffic_is_not_judged(self):
        assert judged(slots(1, calls=2), slots(2, calls=2)).verdict == "not measured"
        assert judged(slots(1, number=4), slots(2, number=4)).verdict == "not measured"

    def test_without_a_control_nothing_is_proven(self):
        def everything(text):
            return True

        found = judge_traffic("s", slots(1, ms=10), slots(2, ms=5), TEXTS, everything)
        assert {each.verdict for each in found.statements} == {"unproven"}

    @pytest.mark.exhaustive
    def test_of_two_hundred_unchanged_weeks_none_is_called_faster(self):
        verdicts = [judged(slots(2 * n), slots(2 * n + 1)).verdict for n in range(200)]
        assert "faster" not in verdicts
        assert "slower" not in verdicts


class TestAffected:
    @pytest.mark.parametrize(
        ("text", "reads"),
        [
            ("SELECT * FROM orders WHERE id = $1", True),
            ('UPDATE public."orders" SET total = $1', True),
            ("SELECT name FROM customers", False),
            ("SELECT $1", None),
            ("SELECT * FROM orders_today", None),
            ("SELECT 'it does not end", None),
        ],
    )
    def test_the_names_in_a_statement_tell_whether_it_may_be_affected(self, shop, text, reads):
        shop.execute("CREATE VIEW orders_today AS SELECT * FROM orders")
        catalog = shop.context().catalog
        assert affected_by(["public.orders"], catalog)(text) is reads


@contextmanager
def traffic(target):
    """Users at work: one query that the index serves, and some that it cannot."""
    stop = threading.Event()

    def work():
        with target.connect(application_name="shop") as connection:
            while not stop.is_set():
                connection.execute("SELECT id FROM orders WHERE status = 'open' ORDER BY created_at, id LIMIT 10")
                for asked in ("count(city)", "count(id)", "max(city)"):
                    connection.execute(f"SELECT {asked} FROM customers".encode())
                time.sleep(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class TestWatching:
    def test_it_watches_applies_and_watches_again(self, shop):
        shop.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        context = shop.context()

        def begun():
            watching = Watching(context, ("1/orders_open",), every("4s"), every("1s"))
            watching._every_s = watching._slot_s = 0.25  # as a week is to half a minute
            return watching

        watching = begun()
        with traffic(shop.target):
            stages = list(watching.run(threading.Event()))
        assert stages[0].name == "before"
        assert stages[-1].name == "after"
        assert "orders_open" in str(shop.execute("SELECT indexname FROM pg_indexes"))
        [found] = watching.verdicts()
        texts = [each.text for each in found.statements]
        assert any("ORDER BY created_at, id LIMIT" in text for text in texts)
        assert found.controls == 3
        assert min(found.seconds) >= 4
        served = next(each for each in found.statements if "LIMIT" in each.text)
        assert min(served.calls) > 50
        assert served.buffers[1] < served.buffers[0], "the index was used"
        assert served.verdict != "slower"
        assert list(begun().run(threading.Event())) == [], "what was watched is not watched again"

    def test_what_cannot_be_watched_is_refused_before_anything_is_done(self, shop):
        with pytest.raises(UsageError, match="has no step 1/never"):
            Watching(shop.context(), ("1/never",), every("7d"), every("30s"))
        with pytest.raises(UsageError, match="with --apply it is"):
            Watching(shop.context(apply=False), ("1/orders_open",), every("7d"), every("30s"))
        with pytest.raises(UsageError, match="too short for a sample every 1h"):
            Watching(shop.context(), ("1/orders_open",), every("30m"), every("1h"))
