"""The single push."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError, MalformedError, MeteriteError, TooLargeError
from meterite.model.time import AT_FIRST_US, AT_LAST_US, format_rfc3339
from meterite.wire import push
from meterite.wire.push import Push, decode_push, encode_meter, encode_meters

T_US = 1767225600 * 10**6


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"reading": 42.5}', Push(42.5, None)),
        (b'{"reading": 42}', Push(42.0, None)),
        (b'{"reading": "42.5"}', Push(42.5, None)),
        (b'{"reading": 1, "reading_at": null}', Push(1.0, None)),
        (b'{"reading": 1, "reading_at": "2026-01-01T00:00:00"}', Push(1.0, T_US)),
        (b'{"reading": 1, "reading_at": "2026-01-01T01:00:00+01:00"}', Push(1.0, T_US)),
        (
            b'{"reading": 1, "labels": {"b": "2", "a": "1", "c": ""}}',
            Push(1.0, None, (("a", "1"), ("b", "2"))),
        ),
        (b'{"reading": 1, "labels": null}', Push(1.0, None)),
        (b'{"reading" : 1, "metric": {"deep": [1]}, "x": null}', Push(1.0, None)),
        (b'\xef\xbb\xbf{"re\\u0061ding": 1}', Push(1.0, None)),
        (
            b'{"reading": 1, "metric_id": 7, "recorded_at": "x", "value": 5, "time": 5, "unit": "W"}',
            Push(1.0, None),
        ),
    ],
)
def test_what_is_taken(body, expected):
    """Numbers and numeric strings, times with and without offset, labels; other fields are ignored."""
    assert decode_push(body) == expected


@pytest.mark.parametrize(
    ("body", "error", "code", "place"),
    [
        (b"", MalformedError, "json-invalid", None),
        (b"reading=5", MalformedError, "json-invalid", None),
        (b'{"reading": 1}{}', MalformedError, "json-invalid", None),
        (b'{"reading": 1, "labels": {"a": "\xff"}}', MalformedError, "not-utf-8", None),
        (b'{"x":' * 50_000, TooLargeError, "json-too-deep", None),
        (b"[1]", InvalidInputError, "shape-invalid", ("body",)),
        (b"{}", InvalidInputError, "missing-field", ("body", "reading")),
        (b'{"reading": 1, "readingat": "2026-01-01"}', InvalidInputError, "unknown-field", ("body", "readingat")),
        (b'{"reading": 1, "reading_att": 5}', InvalidInputError, "unknown-field", ("body", "reading_att")),
        (b'{"reading": 1, "label": {"a": "1"}}', InvalidInputError, "unknown-field", ("body", "label")),
        (b'{"Reading": 1}', InvalidInputError, "unknown-field", ("body", "Reading")),
        (b'{"reading": true}', InvalidInputError, "reading-invalid", ("body", "reading")),
        (b'{"reading": null}', InvalidInputError, "reading-invalid", ("body", "reading")),
        (b'{"reading": NaN}', InvalidInputError, "reading-invalid", ("body", "reading")),
        (b'{"reading": 1e999}', InvalidInputError, "reading-invalid", ("body", "reading")),
        (b'{"reading": ' + b"1" * 5000 + b"}", InvalidInputError, "reading-invalid", ("body", "reading")),
        (b'{"reading": "nan"}', InvalidInputError, "reading-invalid", ("body", "reading")),
        (b'{"reading": 1, "reading": 2}', InvalidInputError, "duplicate-key", ("body",)),
        (b'{"reading": 1, "reading" : 2}', InvalidInputError, "duplicate-key", ("body",)),
        (b'{"reading": 1, "reading_at": "x"}', InvalidInputError, "time-invalid", ("body", "reading_at")),
        (b'{"reading": 1, "reading_at": 5}', InvalidInputError, "time-invalid", ("body", "reading_at")),
        (b'{"reading": 1, "reading_at": true}', InvalidInputError, "time-invalid", ("body", "reading_at")),
        (b'{"reading": 1, "reading_at": "2300-01-01"}', InvalidInputError, "time-out-of-range",
         ("body", "reading_at")),
        (b'{"reading": 1, "labels": [1]}', InvalidInputError, "label-invalid", ("body", "labels")),
        (b'{"reading": 1, "labels": {"a": 1}}', InvalidInputError, "label-invalid", ("body", "labels")),
        (b'{"reading": 1, "labels": {"": "a"}}', InvalidInputError, "label-invalid", ("body", "labels")),
    ],
)  # fmt: skip
def test_what_is_refused(body, error, code, place):
    """With a stable code and, where the JSON was good, the place."""
    with pytest.raises(error) as caught:
        decode_push(body)
    assert caught.value.code == code
    assert place is None or caught.value.place == place
    assert len(caught.value.message) < 200


def test_what_was_meant_is_said():
    """A slip would be a reading of now, or without labels; bounded, however many names there are."""
    with pytest.raises(InvalidInputError, match=r"did you mean reading_at\?"):
        decode_push(b'{"reading": 1, "raeding_at": "2026-01-01"}')
    many = {"reading": 1} | {f"x{n}": n for n in range(10_000)}
    assert decode_push(json.dumps(many | {"readingat": 1}).encode()) == Push(1.0, None)


def outcome(way, body):
    """What came out, or the error."""
    try:
        return way(body)
    except MeteriteError as exc:
        return type(exc), exc.code


documents = st.fixed_dictionaries(
    {},
    optional={
        "reading": st.floats() | st.integers() | st.sampled_from(["1", True, None, []]),
        "reading_at": st.sampled_from(["2026-01-01T00:00:00Z", "x", 5, None]),
        "labels": st.none()
        | st.dictionaries(st.sampled_from("ab:"), st.sampled_from(["", '":', 1]), max_size=2),
        "x": st.none(),
    },
)


@given(documents.map(lambda d: json.dumps(d).encode()) | st.binary(max_size=30))
def test_the_fast_way_is_the_exact_way(body):
    """The same reading or the same error for any bytes, and no other error."""
    assert outcome(decode_push, body) == outcome(push._decode_exactly, body)


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(AT_FIRST_US, AT_LAST_US),
    st.integers(1, 2**31 - 1),
    st.integers(AT_FIRST_US, AT_LAST_US),
)
def test_a_meter_reads_back(reading, at_us, metric_id, recorded_at_us):
    """Each field as the contract writes it."""
    assert json.loads(encode_meter(reading, at_us, metric_id, recorded_at_us)) == {
        "reading": reading,
        "reading_at": format_rfc3339(at_us),
        "metric_id": metric_id,
        "recorded_at": format_rfc3339(recorded_at_us),
    }


@given(
    st.lists(
        st.tuples(
            st.floats() | st.integers(-9, 9).map(float),
            st.integers(AT_FIRST_US, AT_LAST_US),
            st.integers(AT_FIRST_US, AT_LAST_US) | st.just(NO_TIME),
        )
    )
)
def test_many_meters_are_each_of_them(meters):
    """By columns the same texts, byte for byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push, "_FEW", 0)
        check_many(meters)


def check_many(meters):
    reading, at_us, recorded_at_us = zip(*meters, strict=True) if meters else ((), (), ())
    columns = np.array(reading, float), np.array(at_us, np.int64), 7, np.array(recorded_at_us, np.int64)
    each = [encode_meter(value, at, 7, recorded) for value, at, recorded in meters]
    assert encode_meters(*columns) == b"[%b]" % b",".join(each)


def test_whole_numbers_have_no_point():
    """And minus zero is zero."""
    expected = (
        b'{"reading":%s,"reading_at":"2026-01-01T00:00:00Z","metric_id":1,'
        b'"recorded_at":"2026-01-01T00:00:00Z"}'
    )
    for reading, text in [(42.0, b"42"), (-0.0, b"0"), (42.5, b"42.5")]:
        assert encode_meter(reading, T_US, 1, T_US) == expected % text


def test_a_time_of_recording_that_isnt_known():
    """Null."""
    meter = json.loads(encode_meter(1.5, T_US, 7, NO_TIME))
    assert meter == {"reading": 1.5, "reading_at": format_rfc3339(T_US), "metric_id": 7, "recorded_at": None}
