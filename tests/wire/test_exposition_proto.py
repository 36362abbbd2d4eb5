"""Delimited protobuf of exposition, written here from its schema."""

from __future__ import annotations

import functools
import math
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME, Described
from meterite.model.errors import MalformedError, MeteriteError, TooLargeError
from meterite.wire.exposition import decode_exposition
from meterite.wire.exposition_proto import decode_families, go_number, is_protobuf
from wire.known_names import check_known_names
from wire.prometheus_families import counter, family, field, gauge, message, metric, varint


def rows(decoded):
    return [
        (decoded.keys[n].code, dict(decoded.keys[n].labels), None if at == NO_TIME else at, value)
        for n, at, value in zip(
            decoded.key_index.tolist(), decoded.at_us.tolist(), decoded.values.tolist(), strict=True
        )
    ]


def decode(*families, **options):
    return decode_families(b"".join(families), **({"readings_max": 1000} | options))


def test_numbers():
    """Gauges, counters and what has no type; labels, times in milliseconds, several families, nothing at all."""
    decoded = decode(
        family("a", (3, 1), metric(gauge(1.5)), metric(gauge(math.nan), x="1", y="é")),
        family("b_total", metric(counter(2), (6, 1_767_225_600_123))),
        family("c", metric((5, message((1, -math.inf))), (6, -1))),
        family("d", metric((2, b""))),
        family("e"),
    )
    assert repr(rows(decoded)) == repr(
        [
            ("a", {}, None, 1.5),
            ("a", {"x": "1", "y": "é"}, None, math.nan),
            ("b_total", {}, 1_767_225_600_123_000, 2.0),
            ("c", {}, -1000, -math.inf),
            ("d", {}, None, 0.0),
        ]
    )
    assert (decoded.row.tolist(), decoded.counted, decoded.unit) == ([0, 1, 2, 3, 4], "index", "ms")
    assert rows(decode()) == []


def bucket(count, bound, *more):
    return (3, message((1, count), (2, float(bound)), *more))


def test_histograms_and_summaries_are_what_the_text_says():
    """The same series from both formats."""
    proto = decode(
        family(
            "h",
            metric(
                (7, message((1, 5), (2, 7.5), bucket(1, 0.1), bucket(3, 1_000_000), bucket(5, math.inf))),
                x="1",
            ),
        ),
        family("g", metric((7, message((1, 4), (2, 1.0), bucket(2, 1))))),
        family("s", metric((4, message((1, 3), (2, 6.0), (3, message((1, 0.99), (2, 2.5))))))),
    )
    text = decode_exposition(
        b'h_bucket{x="1",le="0.1"} 1\nh_bucket{x="1",le="1e+06"} 3\nh_bucket{x="1",le="+Inf"} 5\n'
        b'h_sum{x="1"} 7.5\nh_count{x="1"} 5\n'
        b'g_bucket{le="1"} 2\ng_bucket{le="+Inf"} 4\ng_sum 1\ng_count 4\n'
        b's{quantile="0.99"} 2.5\ns_sum 6\ns_count 3\n',
        readings_max=100,
    )
    assert rows(proto) == rows(text)


def test_floats_for_counts():
    """They stand above whole numbers, where they aren't zero."""
    decoded = decode(family("h", metric((7, message((1, 5), (4, 2.5), bucket(1, math.inf, (4, 1.5)))))))
    assert [value for *_, value in rows(decoded)] == [1.5, 0.0, 2.5]


def test_what_is_no_reading():
    """Exemplars, native buckets, times of creation and metrics without a value are counted, or nothing; unknown fields
    are passed over.
    """
    decoded = decode(
        family("a_total", metric(counter(1, (2, message((2, 0.5))), (3, message((1, 5)))), (99, "x"))),
        family(
            "n", metric((7, message((1, 3), (2, 1.0), (5, 2), (9, b"\x08\x01"), (10, b"\x02"), (16, b""))))
        ),
        family("z", metric(x="1")),
        family("b", metric((7, message((1, 1), bucket(1, math.inf, (3, b"")))))),
    )
    assert [code for code, *_ in rows(decoded)] == [
        "a_total", "n_bucket", "n_sum", "n_count", "b_bucket", "b_sum", "b_count",
    ]  # fmt: skip
    assert decoded.skipped == 1 + 2 + 1 + 1


def test_what_describes():
    """Help and unit, of the codes that were brought; of counts there is no unit."""
    decoded = decode(
        family("h_seconds", metric((7, message((1, 1)))), (2, "How long."), (5, "seconds")),
        family("a", (2, "A."), metric(gauge(1))),
        family("b", (2, "Nobody.")),
        family("c", (2, "x" * 10_001), metric(gauge(1))),
    )
    assert decoded.described == {
        "h_seconds_bucket": Described("", "How long."),
        "h_seconds_sum": Described("seconds", "How long."),
        "h_seconds_count": Described("", "How long."),
        "a": Described("", "A."),
    }


def test_what_can_t_be_kept():
    """A metric is rejected by its number, as a whole; the others are taken."""
    double = (1, message((1, "x"), (2, "1")))
    decoded = decode(
        family("", metric(gauge(1))),
        family("a", metric(gauge(1), double, double), metric(gauge(2)), metric(gauge(3), __name__="b")),
        family("a" * 196, metric((4, message((1, 1), (2, 1.0))))),
        family("b", metric(gauge(1), (6, 1 << 60)), metric(gauge(1), x="1\n")),
    )
    assert rows(decoded) == [("a", {}, None, 2.0)]
    assert [(r.index, r.code) for r in decoded.rejected] == [
        (0, "code-invalid"),
        (1, "label-invalid"),
        (3, "label-invalid"),
        (4, "code-invalid"),
        (5, "time-unit"),
        (6, "label-invalid"),
    ]


def test_labels_and_a_time_from_without():
    """As in the text format."""
    decoded = decode(
        family("a", metric(gauge(1), job="x", i="1"), metric(gauge(2), (6, 7))),
        labels={"job": "y", "i": ""},
        at_us=5,
    )
    assert rows(decoded) == [("a", {"job": "y"}, 5, 1.0), ("a", {"job": "y"}, 7000, 2.0)]


@pytest.mark.parametrize(
    "body",
    [
        b"\x05",
        b"\x80",
        b"\xff" * 11,
        varint(1 << 63),
        family("a", metric(gauge(1)))[:-1],
        b"\x03\x22\x7f\x00",
        b"\x02\x0b\x00",
        field(1, b"\xff"),
        family("a", (1, b"\xff")),
        family("a", (4, b"\x12\x7f")),
        family("a", (4, b"\x0a\x02\x0a\x01")),
    ],
)
def test_wrong_lengths(body):
    """Bytes that aren't such messages are told as what they are."""
    with pytest.raises(MalformedError):
        decode(body)


def test_bounds():
    """All readings of all metrics count."""
    whole = family("s", metric((4, message((1, 1), (2, 1.0)))))
    assert len(decode(whole, readings_max=2)) == 2
    with pytest.raises(TooLargeError):
        decode(whole, readings_max=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "-0"), (1.0, "1"), (-2.5, "-2.5"), (100000.0, "100000"), (1e6, "1e+06"),
        (1234567.0, "1.234567e+06"), (0.0001, "0.0001"), (0.00001, "1e-05"), (1e21, "1e+21"), (1e-300, "1e-300"),
        (123456.789, "123456.789"), (0.1 + 0.2, "0.30000000000000004"), (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_numbers_as_go_writes_them(value, text):
    """strconv.FormatFloat(value, 'g', -1, 64), by its documentation."""
    assert go_number(value) == text


@given(st.floats(allow_nan=False))
def test_a_number_that_go_wrote_is_the_same_number(value):
    """To the bit."""
    assert struct.pack("<d", float(go_number(value))) == struct.pack("<d", value)


def test_zeros_keep_their_signs():
    """Whichever was written first."""
    assert [go_number(value) for value in (0.0, -0.0, 0.0)] == ["0", "-0", "0"]


def test_a_content_type_tells_it():
    assert is_protobuf("application/vnd.google.protobuf")
    assert not is_protobuf("text/plain")


WHOLE = family("h", (2, "x"), metric((7, message((1, 5), (2, 7.5), bucket(1, 0.1))), (6, 5), x="1"))


SPOILT = st.binary(max_size=80) | st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
    lambda change: WHOLE[: change[0]] + bytes([change[1]]) + WHOLE[change[0] + 1 :]
)


def is_sound(body):
    """Columns, or an error of ours."""
    try:
        decoded = decode(body)
    except MeteriteError:
        return
    assert set(decoded.key_index.tolist()) == set(range(len(decoded.keys)))


@given(SPOILT)
def test_any_bytes(body):
    is_sound(body)


SIMILAR = st.builds(
    lambda name, value, labels: family(name, *(metric(each, **labels) for each in value)),
    st.sampled_from(["h", "h_sum", "é", ""]),
    st.lists(
        st.sampled_from(
            [
                gauge(1),
                counter(2),
                (7, message((1, 5), bucket(1, 0.1))),
                (7, message((1, 5), bucket(2, -0.0))),
                (7, message((1, 5), bucket(2, 0))),
                (4, message((1, 3), (3, message((1, 0.1), (2, 2.5))))),
            ]
        ),
        max_size=3,
    ),
    st.sampled_from([{}, {"x": "1"}, {"le": "9"}, {"x": "1", "y": ""}, {"x": "\x00"}, {"__name__": "a"}]),
)


@given(
    st.lists(
        st.tuples(
            SPOILT | st.lists(SIMILAR, max_size=3).map(b"".join), st.sampled_from([{}, {"x": "2"}, {"x": ""}])
        ),
        min_size=2,
        max_size=5,
    )
)
@example([(family("h", metric(gauge(1), le="9")), {}), (family("h", metric(gauge(1), le="9")), {"le": "8"})])
@example([(family("h", metric(gauge(1))), {}), (family("h", metric((7, message((1, 5))))), {})])
def test_known_names_change_nothing(requests):
    """Whatever came before, under these labels or others."""
    check_known_names(
        [
            (functools.partial(decode_families, readings_max=9, labels=labels), body)
            for body, labels in requests
        ]
    )


@pytest.mark.soak
@pytest.mark.timeout(3600)
@given(SPOILT)
@settings(max_examples=100_000, deadline=None)
def test_any_bytes_for_long(body):
    is_sound(body)
