"""Whatever a client sends, the reference service answers, and never with an error of its own."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from playbook.service import filters, reads

HOSTILE = ["\0", "a\0b", "\\", "%", "'", "�", "\U0001f600", "NaN", "Infinity", "-0", "1e999999", "9" * 5000, "", " "]
values = (
    st.sampled_from(HOSTILE).map(str.encode)
    | st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary(max_size=20)
    | st.integers().map(lambda number: str(number).encode())
    | st.floats().map(lambda number: str(number).encode())
)
names = {
    endpoint.path: sorted(type(endpoint.sample_filters).model_fields) if endpoint.sample_filters else []
    for endpoint in reads.ENDPOINTS
}
queries = st.sampled_from(sorted(names)).flatmap(
    lambda path: st.tuples(
        st.just(path),
        values,
        st.dictionaries(st.sampled_from([*names[path], "x"]), values, max_size=3),
    )
)
texts = st.text(st.characters(codec=None), max_size=10) | st.sampled_from(HOSTILE)
moments = st.datetimes(timezones=st.none() | st.timezones()).map(lambda at: at.isoformat()) | st.sampled_from(
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 10**30, -(10**15), float("nan")]
)
BODIES = {
    ("PATCH", "/proposals/p0000010"): filters.ProposalChange,
    ("POST", "/approvals/none/decision"): filters.Decision,
    ("POST", "/validation-issues/none/resolution"): filters.Resolution,
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | moments,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
bodies = st.sampled_from(sorted(BODIES)).flatmap(
    lambda place: st.tuples(
        st.just(place),
        anything | st.dictionaries(st.sampled_from([*BODIES[place].model_fields, "x"]), anything | moments, max_size=3),
    )
)
MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(queries)
@example(("/proposals", b"", {"status": b"\0"}))
@example(("/proposals", b"", {"min_value": b"1e999999"}))
@example(("/proposals/{key}", b"\0", {}))
def test_no_question_is_answered_with_500(optimized, asked):
    path, key, parameters = asked
    query = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
    answer = optimized.get(f"{path.replace('{key}', quote(key, safe='') or 'x')}?{query}")
    assert answer.status_code in {200, 400, 404, 422}, answer.text


@MANY
@given(bodies)
@example((("PATCH", "/proposals/p0000010"), {"status": "\ud800"}))
@example((("PATCH", "/proposals/p0000010"), {"due_date": "0001-01-01T00:00:00+14:00"}))
@example((("PATCH", "/proposals/p0000010"), {"priority": float("nan"), "\udfff": 1}))
def test_no_write_is_answered_with_500_nor_spoils_what_is_read(optimized, sent):
    (method, path), body = sent
    headers = {"content-type": "application/json"}
    answer = optimized.client.request(method, path, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code in {200, 400, 404, 422}, answer.text
    if answer.status_code == 200:
        assert optimized.get("/proposals/p0000010").status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'"' + b"x" * 1_000_000 + b'"'])
def test_a_body_that_is_no_json_is_refused(optimized, body):
    headers = {"content-type": "application/json"}
    answer = optimized.client.patch("/proposals/p0000010", content=body, headers=headers)
    assert answer.status_code in {400, 422}
