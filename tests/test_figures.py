"""Figures are written with their unit, in three digits, and a figure not measured never as a zero."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook import figures
from playbook.axis import LogAxis


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ms"),
        (0.00001, "< 0.0001 ms"),
        (0.0423, "0.0423 ms"),
        (0.9996, "1.00 ms"),
        (1.894, "1.89 ms"),
        (41.27, "41.3 ms"),
        (99.96, "100 ms"),
        (999.6, "1,000 ms"),
        (12345.6, "12,346 ms"),
        (None, "not measured"),
    ],
)
def test_milliseconds(value, text):
    assert figures.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.00 kB"),
        (1023.9 * 1024, "1.00 MB"),
        (41_910_272, "40.0 MB"),
        (-8192, "−8.00 kB"),
        (3 * 1024**4, "3.00 TB"),
        (None, "not measured"),
    ],
)
def test_sizes_are_in_powers_of_1024_as_postgresql_writes_them(value, text):
    assert figures.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.420 s"), (59.4, "59.4 s"), (59.7, "1 min 00 s"), (133.4, "2 min 13 s"), (3599.8, "1 h 00 min")],
)
def test_durations(value, text):
    assert figures.duration(value) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("api_p95_ms", 231.4, "231 ms"),
        ("cache_hit_rate_pct", 80.0, "80 %"),
        ("total_queries", 120412.0, "120,412"),
        ("index_bytes", 8192, "8.00 kB"),
        ("error_rate_pct", None, "not measured"),
        ("api_p95_ms_as_found", 113.2, "113 ms"),
        ("whole_p50_reduction_pct_low", 67.8, "67.8 %"),
        ("api_database_ms_per_request_optimized", 5.98, "5.98 ms per request"),
        ("api_bytes_per_request_optimized", 6915.0, "6.75 kB per request"),
        ("engine_per_request_ms", 9.36, "9.36 ms"),
        ("n_plus_one_statements_as_found", 506.0, "506 statements"),
        ("pool_recommended_connections", 8.0, "8 connections"),
        ("api_throughput_rps_as_found", 8.0, "8 per s"),
    ],
)
def test_the_last_unit_that_a_name_holds_is_its_own(name, value, text):
    assert figures.named(name, value) == text


def test_a_unit_that_is_said_wins_over_the_names_end():
    assert figures.named("rate", 80.0, "pct") == "80 %"
    assert figures.named("total_ms", 3.0, "queries") == "3 queries"


def test_a_change_carries_its_sign():
    assert figures.percent(4.1, change=True) == "+4.10 %"
    assert figures.percent(-4.1, change=True) == "−4.10 %"
    assert figures.percent(0, change=True) == "0 %"


def test_a_moment_is_in_utc_and_one_that_is_none_comes_back():
    assert figures.moment("2026-11-22T23:05:12+02:00") == "22 November 2026, 21:05 UTC"
    assert figures.moment("yesterday") == "yesterday"


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_three_digits_are_within_half_a_percent_of_the_value(value):
    text = figures.significant(value)
    if not text.startswith("<"):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.006, abs=0.00006)


ratios = st.floats(min_value=1e-4, max_value=1e6)


@given(st.lists(ratios, max_size=20))
def test_the_axis_holds_every_ratio_and_labels_one_with_few_ticks(values):
    axis = LogAxis.around(values)
    assert all(0 < axis.at(value) < 1 for value in values)
    assert 1 in axis.ticks
    assert 1 < len(axis.ticks) <= 9


@given(ratios)
def test_on_the_axis_a_gain_stands_as_far_from_one_as_its_mirrored_loss(ratio):
    axis = LogAxis.around([ratio, 1 / ratio])
    assert axis.at(ratio) - axis.at(1) == pytest.approx(axis.at(1) - axis.at(1 / ratio), abs=1e-9)
