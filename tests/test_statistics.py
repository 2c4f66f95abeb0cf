"""Verdicts on simulated rounds: what has to be found, what must not be, and what the machine is to blame for."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook.evidence.ranks import mann_whitney
from playbook.evidence.statistics import Drift, drift, judge, ratio

BEFORE, AFTER = (20, 20), (20, 20)
NO_CONTROLS = Drift(0, None, None, moved=False, reason="no control ran beside it")


def white(cv):
    return lambda random, rounds: random.standard_normal(rounds) * cv


def spiky(cv):
    """White noise, and every twentieth round something that takes up to twice as long."""
    return lambda random, rounds: (
        random.standard_normal(rounds) * cv + (random.random(rounds) < 0.05) * random.exponential(0.7, rounds)
    )


def autocorrelated(cv, rho=0.9):
    def noise(random, rounds):
        steps = random.standard_normal(rounds)
        values = np.empty(rounds)
        values[0] = steps[0]
        for place in range(1, rounds):
            values[place] = rho * values[place - 1] + math.sqrt(1 - rho**2) * steps[place]
        return values * cv

    return noise


def simulated(noise, *, gain=1.0, phases=10, queries=20, controls=4, machine=(0, 0, 0, 0), seed=1, shared=None):
    """Counts the verdicts of `phases` x `queries` comparisons.

    `machine` is by what share each of the two blocks before and two after is slower, for controls too; `shared` is
    noise that all queries of a round have in common.
    """
    random = np.random.default_rng(seed)
    counted = Counter()
    rounds = sum(BEFORE + AFTER)
    levels = np.repeat(np.log1p(machine), BEFORE + AFTER)
    for _ in range(phases):
        common = levels + (shared(random, rounds) if shared else 0)

        def phase(gain, common=common):
            times = 5 * np.exp(noise(random, rounds) + common)
            times[sum(BEFORE) :] /= gain
            blocks = np.split(times, np.cumsum(BEFORE + AFTER)[:-1])
            return blocks[:2], blocks[2:]

        moved = drift([phase(1) for _ in range(controls)])
        counted.update(judge(*phase(gain), buffers=(9, 9), drift=moved).verdict for _ in range(queries))
    return counted


def false(counted):
    return counted["faster"] + counted["slower"]


@pytest.mark.parametrize("noise", [white(0.03), white(0.1), white(0.2), spiky(0.08), autocorrelated(0.05, 0.6)])
def test_of_200_unchanged_queries_at_most_2_are_called_faster_or_slower(noise):
    counted = simulated(noise)
    assert false(counted) <= 2, counted
    assert counted["unstable"] <= 20, counted


@pytest.mark.parametrize("noise", [white(0.03), white(0.1), spiky(0.08), autocorrelated(0.03, 0.6)])
def test_of_40_gains_of_thirty_percent_95_percent_are_found(noise):
    counted = simulated(noise, gain=1.3, phases=10, queries=4)
    assert counted["faster"] >= 38, counted


@pytest.mark.parametrize("noise", [white(0.03), spiky(0.05)])
def test_of_40_losses_of_thirty_percent_95_percent_are_found(noise):
    counted = simulated(noise, gain=1 / 1.3, phases=10, queries=4)
    assert counted["slower"] >= 38, counted


@pytest.mark.parametrize("after", [-0.25, 0.3, -0.4, 1.0])
def test_a_machine_that_changes_much_between_the_phases_makes_all_unstable(after):
    assert simulated(white(0.05), machine=(0, 0, after, after), phases=4) == {"unstable": 80}


@pytest.mark.parametrize(
    "machine", [(0, -0.15, -0.15, -0.15), (0.15, 0, 0, 0), (0, 0, 0, -0.15), (-0.1, 0.1, -0.1, 0.1)]
)
def test_a_machine_that_changes_within_a_phase_makes_nothing_faster_or_slower(machine):
    assert false(simulated(white(0.05), machine=machine, phases=5)) <= 1


@pytest.mark.parametrize("after", [-0.15, -0.08, 0.08, 0.15])
def test_a_smaller_change_of_the_machine_is_no_change_of_the_queries(after):
    assert false(simulated(white(0.03), machine=(0, 0, after, after), phases=5)) <= 1


@pytest.mark.parametrize("shared", [False, True])
def test_strongly_autocorrelated_noise_makes_no_flood_of_false_verdicts(shared):
    noise = {"noise": white(0.03), "shared": autocorrelated(0.1)} if shared else {"noise": autocorrelated(0.1)}
    assert false(simulated(**noise)) <= 4


def test_a_big_gain_is_found_even_in_such_noise_and_a_small_one_never_denied():
    assert simulated(autocorrelated(0.1), gain=20, phases=4)["faster"] >= 60
    counted = simulated(autocorrelated(0.1), gain=1.5, phases=4)
    assert counted["no gain"] == counted["slower"] == 0
    assert set(counted) <= {"faster", "unproven", "unstable"}


@pytest.mark.parametrize("noise", [white(0.1), spiky(0.1), autocorrelated(0.1)])
def test_a_gain_of_thirty_percent_is_not_called_no_gain(noise):
    assert simulated(noise, gain=1.3, phases=4)["no gain"] == 0


def test_an_unchanged_query_is_called_no_gain_when_the_noise_is_small():
    assert simulated(white(0.03), phases=4)["no gain"] >= 76


def test_the_interval_covers_the_true_ratio():
    random = np.random.default_rng(5)
    for noise, least in ((white(0.1), 0.93), (spiky(0.1), 0.93), (autocorrelated(0.1), 0.80)):
        covered = 0
        for _ in range(100):
            times = np.split(np.exp(noise(random, 80)), 4)
            low, high = ratio(times[:2], [block / 1.2 for block in times[2:]]).ci95
            covered += low <= 1.2 <= high
        assert covered >= 100 * least, covered


def rounds(level, count=20, seed=0, cv=0.02):
    return list(level * np.exp(np.random.default_rng(seed).standard_normal(count) * cv))


def steady(level, seed=0, cv=0.02):
    return [rounds(level, seed=seed, cv=cv), rounds(level, seed=seed + 1, cv=cv)]


STEADY = drift([(steady(level, 10 * level), steady(level, 10 * level + 5)) for level in range(1, 8)])


def test_the_speedup_is_the_ratio_of_the_medians():
    before, after = steady(10), steady(4, 70)
    found = judge(before, after, drift=STEADY)
    assert found.speedup == pytest.approx(np.median(np.concatenate(before)) / np.median(np.concatenate(after)))
    assert found.ci95[0] < found.speedup < found.ci95[1]
    assert (found.verdict, found.p < 0.002) == ("faster", True)


def test_a_gain_below_ten_percent_is_not_called_faster_however_certain():
    certain = judge(steady(10, cv=0.001), steady(10 / 1.07, 70, cv=0.001), buffers=(9, 9), drift=STEADY)
    assert certain.ci95[0] > 1.06
    assert certain.verdict == "no gain"
    found = judge(steady(10, cv=0.05), steady(10 / 1.09, 70, cv=0.05), buffers=(9, 9), drift=STEADY)
    assert (found.verdict, found.ci95[0] > 1, found.ci95[1] > 1.10) == ("unproven", True, True)
    assert "an effect below 10 %" in found.reason


def test_fewer_than_seven_rounds_on_either_side_are_not_judged():
    few = judge([rounds(10, 6)], [rounds(5, 20)], drift=STEADY)
    assert (few.verdict, few.speedup, few.ci95, few.p) == ("not measured", None, None, None)
    assert "6 rounds before" in few.reason
    assert judge([rounds(10, 4), rounds(10, 3, 1)], [rounds(5, 7, 2)], drift=STEADY).verdict == "faster"


def test_without_controls_neither_gain_nor_its_absence_is_claimed():
    for after in (5, 10, 20):
        found = judge(steady(10), steady(after, 70), buffers=(9, 9), drift=NO_CONTROLS)
        assert (found.verdict, "no control" in found.reason) == ("unproven", True)
    assert drift([]) == NO_CONTROLS


def test_an_effect_must_hold_against_every_block_before():
    before = [rounds(10), rounds(5.2, seed=1)]
    found = judge(before, [rounds(5, seed=2), rounds(5, seed=3)], drift=STEADY)
    assert found.speedup > 1.10
    assert found.verdict == "unproven"


def test_one_control_that_moves_makes_the_verdict_unstable():
    controls = [(steady(3, 10), steady(3, 20)), (steady(8, 30), steady(8, 40)), (steady(5, 50), steady(4, 60))]
    moved = drift(controls)
    found = judge(steady(10), steady(2, 70), drift=moved)
    assert (moved.moved, found.verdict) == (True, "unstable")
    assert "1 of 3 controls moved" in found.reason


def test_a_query_is_not_faster_for_what_its_controls_gained_too():
    moving = [(steady(level, seed), steady(level / 1.08, seed + 4)) for seed, level in ((10, 3), (30, 8), (50, 1))]
    found = judge(steady(10), steady(10 / 1.14, 70), drift=drift(moving))
    assert not drift(moving).moved
    assert judge(steady(10), steady(10 / 1.14, 70), drift=STEADY).verdict == "faster"
    assert (found.verdict, "controls" in found.reason) == ("unproven", True)


def test_bursts_that_hit_all_queries_of_a_round_hide_no_gain():
    bursts = {"noise": white(0.05), "shared": autocorrelated(0.07), "controls": 7}
    assert simulated(**bursts, gain=1.3, phases=4)["faster"] >= 76
    assert false(simulated(**bursts)) <= 2


def test_a_query_that_moves_no_further_than_its_controls_differ_did_not_move():
    apart = [(steady(5, seed), steady(5 * slower, seed + 4)) for seed, slower in enumerate((0.92, 0.96, 1, 1.04, 1.08))]
    found = judge(steady(10), steady(10 / 1.12, 70), drift=drift(apart))
    assert judge(steady(10), steady(10 / 1.12, 70), drift=STEADY).verdict == "faster"
    assert (found.verdict, "controls" in found.reason) == ("unproven", True)


def test_controls_with_too_few_rounds_are_no_controls():
    assert drift([([rounds(3, 6)], [rounds(3, 6)])]) == NO_CONTROLS


@pytest.mark.parametrize(
    ("buffers", "verdict"),
    [
        ((100, 100), "no gain"),
        ((100, 91), "no gain"),
        ((100, 90), "unproven"),
        ((100, 400), "no gain"),
        ((0, 0), "no gain"),
        ((None, 100), "unproven"),
        ((100, None), "unproven"),
    ],
)
def test_no_gain_asks_for_buffers_that_did_not_fall_by_a_tenth(buffers, verdict):
    assert judge(steady(10), steady(10, 70), buffers=buffers, drift=STEADY).verdict == verdict


def test_the_same_rounds_give_the_same_judgement():
    assert judge(steady(10), steady(7, 70), drift=STEADY) == judge(steady(10), steady(7, 70), drift=STEADY)


def test_times_that_are_all_the_same_are_compared_too():
    found = judge([[2.0] * 20], [[1.0] * 20], drift=STEADY)
    assert (found.speedup, found.ci95, found.verdict) == (2.0, (2.0, 2.0), "faster")
    same = judge([[2.0] * 20], [[2.0] * 20], buffers=(9, 9), drift=STEADY)
    assert (same.speedup, same.p, same.verdict) == (1.0, 1.0, "no gain")


def test_there_must_be_a_round_on_each_side():
    with pytest.raises(ValueError, match="no round"):
        ratio([[]], [[1.0]])


times = st.lists(st.floats(0, 1e6), min_size=7, max_size=30)


@settings(max_examples=60, deadline=None)
@given(before=st.lists(times, min_size=1, max_size=3), after=st.lists(times, min_size=1, max_size=3))
def test_any_rounds_can_be_judged(before, after):
    found = judge(before, after, buffers=(5, 5), drift=STEADY)
    low, high = found.ci95
    assert 0 < low <= found.speedup * (1 + 1e-9)
    assert found.speedup <= high * (1 + 1e-9)
    assert 0 <= found.p <= 1
    assert (found.verdict == "faster") <= (low > 1 and found.speedup >= 1.10 and found.p < 0.002)
    assert (found.verdict == "slower") <= (high < 1 and found.speedup <= 1 / 1.10 and found.p < 0.002)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), gain=st.floats(0.5, 2))
def test_faster_one_way_is_slower_the_other_way(seed, gain):
    before, after = steady(10, seed, 0.05), steady(10 / gain, seed + 5, 0.05)
    mirror = {"faster": "slower", "slower": "faster"}
    forth, back = judge(before, after).verdict, judge(after, before).verdict
    assert (mirror.get(forth) == back) or {forth, back} <= {"unproven", "faster", "slower"}
    assert {forth, back} not in ({"faster"}, {"slower"})


@settings(deadline=None)
@given(
    first=st.lists(st.floats(0.01, 100), min_size=7, max_size=45),
    second=st.lists(st.floats(0.01, 100), min_size=7, max_size=45),
    digits=st.sampled_from([0, 1, 6]),
)
def test_the_rank_test_is_scipys(first, second, digits):
    from scipy.stats import mannwhitneyu

    sides = [np.round(side, digits) for side in (first, second)]
    wanted = mannwhitneyu(*sides).pvalue
    assert mann_whitney(*sides) == pytest.approx(1.0 if math.isnan(wanted) else wanted, rel=1e-9, abs=1e-12)
