"""What stands in the cache comes back as it was, or not at all; and filters that mean the same have one key."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook.service.cache.codec import Unreadable, canonical, decode, encode
from playbook.service.cache.entry import Entry
from playbook.service.cache.tags import NotCacheable

text = st.text(st.characters(codec="utf-8"))
zones = st.sampled_from([None, UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), timezone(timedelta(hours=-5))])
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | text
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=zones, allow_imaginary=False)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.binary()
)
values = st.recursive(
    leaves,
    lambda parts: (
        st.lists(parts) | st.lists(parts).map(tuple) | st.dictionaries(text | st.sampled_from(["$dec", "$"]), parts)
    ),
    max_leaves=12,
)


def same(one, other):
    """Equal in type as well, which `==` is not: 1 == True == 1.0 == Decimal(1)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, datetime):
        return one.isoformat() == other.isoformat() and str(one.tzinfo) == str(other.tzinfo) and one.fold == other.fold
    return repr(one) == repr(other)


@settings(max_examples=40)
@given(values)
def test_a_value_comes_back_as_it_was(value):
    assert same(decode(*encode(value)), value)


moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
rows = st.fixed_dictionaries(
    {"id": st.uuids(), "value": st.none() | st.decimals(allow_nan=False), "at": moments},
    optional={
        "due": st.dates() | st.none(),
        "lines": st.lists(st.fixed_dictionaries({"price": st.decimals("0", "9")})),
    },
)


@settings(max_examples=40)
@given(st.lists(rows))
def test_rows_come_back_as_they_were(value):
    codec, payload = encode(value)
    assert same(decode(codec, payload), value)
    assert b'"$dec":' not in payload, "the tags stand once for all rows"


def test_what_is_no_number_comes_back_too():
    assert math.isnan(decode(*encode(float("nan"))))
    assert decode(*encode([float("-inf"), 2**200])) == [float("-inf"), 2**200]
    assert decode(*encode(Decimal("NaN"))).is_nan()


def test_none_is_a_value_of_its_own():
    assert Entry.of(None, 0.1, 1).is_none
    assert not Entry.of([], 0.1, 1).is_none
    assert Entry.from_bytes(Entry.of(None, 0.1, 1).to_bytes()).value is None


class Text(str):
    pass


endless: list = []
endless.append(endless)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "type object"),
        ({1: "a"}, "the key 1: use text"),
        ([{"a": {3}}], "type set"),
        (Text("a"), "type Text"),
        (endless, "nested too deeply"),
        ("\ud800", "cannot be written"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused(value, said):
    with pytest.raises(NotCacheable, match=said):
        encode(value)
    with pytest.raises(NotCacheable, match=said):
        canonical({"filter": value})


@settings(max_examples=40)
@given(values)
def test_truncated_at_any_place_it_is_not_believed(value):
    stored = Entry.of(value, 0.5, 1000).to_bytes()
    for end in {0, 1, 10, len(stored) // 2, len(stored) - 1}:
        if end < len(stored):
            with pytest.raises(Unreadable):
                Entry.from_bytes(stored[:end])


def test_what_another_version_wrote_is_not_believed():
    stored = Entry.of([1], 0.5, 1000).to_bytes()
    for other in (b"pbc1" + stored[4:], stored + b" ", stored[:-1] + b"!", b"", b"[1]", pickle.dumps([1])):
        with pytest.raises(Unreadable):
            Entry.from_bytes(other)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


HOSTILE = [
    (b"t", b'{"$no such tag": 1}'),
    (b"t", b'{"$dec": [1]}'),
    (b"t", b'{"$dec": "ten"}'),
    (b"t", b'{"$zoned": ["2024-01-01T00:00:00", "../../etc/passwd", 0]}'),
    (b"t", b'{"$zoned": 1}'),
    (b"t", b'{"$bytes": "%%%"}'),
    (b"t", b'{"$pairs": 5}'),
    (b"t", b"[" * 100_000),
    (b"p", b"[" * 100_000 + b"]" * 100_000),
    (b"p", b"\xff\xfe"),
    (b"p", b"NaN"),
    (b"s", b""),
    (b"s", struct.pack(">I", 2**32 - 1) + b"[]"),
    (b"s", struct.pack(">I", 6) + b'"$eval"' + b"1"),
    (b"s", struct.pack(">I", 8) + b'["$dec"]' + b'{"a": 1}'),
    (b"s", struct.pack(">I", 12) + b'{"a":"$dec"}' + b"[1]"),
    (b"s", struct.pack(">I", 4) + b"true" + b"[1]"),
    (b"x", b"[]"),
    (b"t", pickle.dumps(Bomb())),
    (b"p", pickle.dumps(Bomb())),
]


@pytest.mark.parametrize(("codec", "payload"), HOSTILE)
def test_hostile_content_is_not_believed(codec, payload):
    whole = Entry(codec, payload, 0.1, 0).to_bytes()
    with pytest.raises(Unreadable):
        _ = Entry.from_bytes(whole).value


@settings(max_examples=40)
@given(st.sampled_from([b"p", b"s", b"t"]), st.binary(max_size=60))
def test_no_content_whatever_raises_anything_else(codec, payload):
    with contextlib.suppress(Unreadable):
        decode(codec, payload)


filters = st.dictionaries(text, values, max_size=5)


@settings(max_examples=40)
@given(filters, st.randoms())
def test_the_order_of_keys_makes_no_other_key(chosen, random):
    pairs = list(chosen.items())
    random.shuffle(pairs)
    assert canonical(dict(pairs)) == canonical(chosen)


@settings(max_examples=40)
@given(filters, filters)
def test_other_filters_make_another_key(one, other):
    def told(value):
        if isinstance(value, dict):
            return {key: told(value[key]) for key in sorted(value)}
        return (
            [type(value).__name__, *map(told, value)]
            if isinstance(value, (list, tuple))
            else (type(value), repr(value))
        )

    assert (canonical(one) == canonical(other)) == (told(one) == told(other))


def test_types_are_told_apart():
    day, moment = date(2024, 5, 1), datetime(2024, 5, 1, tzinfo=UTC)
    alike = [1, "1", 1.0, True, "true", None, "null", Decimal(1), [1], (1,), {"1": 1}, b"1", [], {}, "", 0, False]
    alike += [day, moment, str(day), str(moment), time(1), timedelta(1), UUID(int=1)]
    alike += [UUID(int=1).hex]
    alike += [{"$dec": "1"}, {"$tuple": [1]}, {"$pairs": [["$dec", "1"]]}]
    assert len({canonical({"filter": value}) for value in alike}) == len(alike)


def test_a_key_tells_nothing_of_its_filters():
    from playbook.service.cache.keys import Keys

    secret = str(uuid4())
    assert secret.encode() not in Keys("app").tail({"token": secret})
    assert json.loads(canonical({"b": 1, "a": "1"})) == {"a": "1", "b": 1}
