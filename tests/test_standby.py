"""A streaming standby as target: looked at, planned and measured, never changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.fix_shop import lay_out

from playbook.errors import Unsupported
from playbook.monitor.history import open_history
from playbook.monitor.sampler import Sampler
from playbook.target.connect import Target


@pytest.fixture
def standby_shop(empty15, standby15, tmp_path, monkeypatch):
    """The shop made on the primary and reached on its standby, once that has all of it."""
    primary = lay_out(empty15, tmp_path, monkeypatch)
    standby15.catch_up(empty15)
    target = Target(spec="env:SHOP_URL", conninfo=standby15.conninfo(empty15.server.database))
    shop = replace(primary, target=target)
    monkeypatch.setenv("SHOP_URL", shop.url())
    return shop


def test_it_is_looked_at_and_measured_and_its_steps_say_what_is_in_the_way(standby_shop):
    playbook = standby_shop.playbook(apply=False, measure=True, budget_s=1.5)
    assert playbook.context.target.server.standby
    phase = playbook.phase("1")
    states = phase.check().steps
    assert {state.status for _, state in states} == {"blocked"}
    assert all("the target is a standby, which is read-only: name the primary" in state.reason for _, state in states)
    assert [len(statements) for _, statements, _ in phase.preview().steps] == [1, 1]
    measured = phase.before()
    assert measured.executed
    assert any(each.rounds for each in measured.measurements)
    assert {each.query for each in measured.measurements if each.plan} >= {"latest_orders", "open_orders"}
    assert not phase.apply().changes


def test_applying_is_refused_in_one_line(standby_shop):
    refused = "is a standby, which is read-only; name the primary to apply anything"
    with pytest.raises(Unsupported, match=refused):
        standby_shop.context(apply=True)
    looked_at = standby_shop.context(apply=False)
    with pytest.raises(Unsupported, match=refused), looked_at.hold("apply"):
        pass


def test_it_is_watched_and_its_history_stands_in_a_file(standby_shop):
    context = standby_shop.context(apply=False)
    with Sampler(context) as sampler:
        sampler.take()
        taken = sampler.take()
    assert [each.source for each in taken.metrics] == ["server"]
    history = open_history(context, make=True)
    history.add(taken.sample)
    assert len(history.samples()[0]) == 1
    history.file.unlink()
