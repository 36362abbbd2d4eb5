"""Prometheus' remote write, 1.0 and 2.0, against messages made by a protobuf library."""

from __future__ import annotations

import math
import random
import struct
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meterite.model.columns import Described
from meterite.model.errors import MalformedError, MeteriteError, TooLargeError, UnsupportedMediaError
from meterite.model.time import AT_FIRST_US, AT_LAST_US
from meterite.wire import compiled
from meterite.wire.names import Names
from meterite.wire.remote_write import MESSAGE_1, MESSAGE_2, decode_remote_write, message_of
from wire.prometheus_messages import V1, request_2, write_request

T = 1_790_000_000_000
STALE = 0x7FF0000000000002
UP = {"__name__": "up", "job": "node"}
BOTH = pytest.mark.parametrize(("make", "message"), [(write_request, MESSAGE_1), (request_2, MESSAGE_2)])


def decode(body, message=MESSAGE_1, names=None, readings_max=10_000):
    """What the plain decoder says, and the compiled one in front of it says as well."""
    decoded = decode_remote_write(body, message=message, names=names or Names(), readings_max=readings_max)
    again = compiled.decode_remote_write(body, message=message, names=Names(), readings_max=readings_max)
    assert outcome(again) == outcome(decoded)
    return decoded


def outcome(decoded):
    told = (decoded.rejected, decoded.skipped, decoded.described, decoded.unit, decoded.counted)
    return decoded.keys, rows(decoded), decoded.row.tolist(), told


def rows(decoded):
    """(code, labels, µs, bits) of each."""
    bits = decoded.values.view(np.uint64).tolist()
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    return [
        (key.code, key.labels, at, bit)
        for key, at, bit in zip(keys, decoded.at_us.tolist(), bits, strict=True)
    ]


def bits_of(value):
    return struct.unpack("<Q", struct.pack("<d", value))[0]


_LABELS = st.dictionaries(
    st.sampled_from(["job", "instance", "le", "Ä"]),
    st.sampled_from(["", "a", "x" * 130, "ÿ", "x" * 16]),
    max_size=4,
)
_SAMPLES = st.lists(
    st.tuples(
        st.integers(T, T + 10**6) | st.integers(-(-AT_FIRST_US // 1000), AT_LAST_US // 1000),
        st.floats() | st.sampled_from([0.0, -0.0, 1.5, struct.unpack("<d", struct.pack("<Q", STALE))[0]]),
    ),
    max_size=5,
)
_SERIES = st.lists(
    st.tuples(st.sampled_from(["up", "http_requests_total", "a:b"]), _LABELS, _SAMPLES), max_size=6
)


@BOTH
@given(_SERIES, st.randoms(use_true_random=False))
@example([("up", {"job": "a"}, [(T, 0.0), (T + 1, 2.0)]), ("up", {}, [(T, 0.0)] * 3)], random.Random(1))
def test_what_a_sender_encodes(make, message, series, order):
    """Every sample with its labels in whatever order, every bit of its value; the same once its names are known."""
    sent = []
    for code, labels, samples in series:
        pairs = [("__name__", code), *labels.items()]
        order.shuffle(pairs)
        sent.append((pairs, samples))
    expected = [
        (code, tuple(sorted((n, v) for n, v in labels.items() if v)), at * 1000, bits_of(value))
        for code, labels, samples in series
        for at, value in samples
    ]
    body, names = make(sent).SerializeToString(), Names()
    for _ in range(2):
        decoded = decode(body, message, names)
        assert rows(decoded) == expected
        assert not decoded.rejected
        assert len(set(decoded.keys)) == len(decoded.keys)


def check_damaged(make, message, data):
    series = [(UP | {"le": str(n)}, [(T + m, float(n * m)) for m in range(n % 3 + 1)]) for n in range(4)]
    body, names = bytearray(make(series).SerializeToString()), Names()
    decode(bytes(body), message, names)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    body = bytes(body[: data.draw(st.integers(0, len(body)))])
    outcomes = []
    for known in (Names(), names):
        try:
            decoded = decode(body, message, known)
            outcomes.append((rows(decoded), decoded.rejected, decoded.skipped))
        except MeteriteError as error:
            outcomes.append((type(error), error.message))
    assert outcomes[0] == outcomes[1]


@BOTH
@given(data=st.data())
def test_a_damaged_body(make, message, data):
    """Bytes that were changed or cut give columns or our error, and the same ones with and without known names."""
    check_damaged(make, message, data)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@BOTH
@given(data=st.data())
@settings(max_examples=100_000, deadline=None)
def test_a_damaged_body_for_long(make, message, data):
    """The same, for longer."""
    check_damaged(make, message, data)


def made(kind, count):
    if kind == "samples":
        return [(UP, [(T + n, n) for n in range(count)])]
    if kind == "odd samples":
        return [(UP, [(n, n) for n in range(count)])]
    if kind == "labels":
        return [([("__name__", "up"), *((f"l{n}", "x") for n in range(count))], [(T, 1)])]
    if kind == "length":
        return [(UP | {"a": "x" * (100 * count)}, [(T, 1)])]
    return [(UP | {"n": str(n)}, [(T, n)]) for n in range(count)]


@BOTH
@pytest.mark.parametrize("kind", ["series", "samples", "odd samples", "labels", "length"])
def test_time_is_linear(make, message, kind):
    """Eight times as much takes less than 24 times as long, known names or not; 100,000 labels are one refusal."""
    most = 20_000 if kind == "series" else 100_000
    few, many = (make(made(kind, count)).SerializeToString() for count in (most // 8, most))

    def cpu_seconds(body):
        best, names = math.inf, Names()
        for _ in range(2):
            begun = time.process_time()
            decode(body, message, names, readings_max=10**6)
            best = min(best, time.process_time() - begun)
        return best

    assert cpu_seconds(many) < 24 * max(cpu_seconds(few), 0.002)


@pytest.mark.parametrize("message", [MESSAGE_1, MESSAGE_2])
@given(body=st.binary(max_size=60))
@example(body=b"\x0a\x12" + b"\x12\x10\x09" + bytes(8) + b"\x10" + b"\x80" * 5 + b"\x01")
def test_any_bytes(message, body):
    """Columns, or an error of ours."""
    try:
        decode(body, message)
    except MeteriteError as error:
        assert error.code == "protobuf-invalid"  # noqa: PT017 - most bytes are none, some are a message


def test_order_within_a_message_is_free():
    """Samples before labels, labels among samples, symbols last, refs one by one: protobuf allows all of it."""
    label = V1["Label"](name="__name__", value="up").SerializeToString()
    sample = V1["Sample"](value=2, timestamp=T).SerializeToString()
    for fields in ([(0x12, sample), (0x0A, label)], [(0x12, sample), (0x0A, label), (0x12, sample)]):
        inner = b"".join(bytes([tag, len(data)]) + data for tag, data in fields)
        names = Names()
        for _ in range(2):
            decoded = decode(bytes([0x0A, len(inner)]) + inner, names=names)
            assert set(rows(decoded)) == {("up", (), T * 1000, bits_of(2))}
        assert not names.known().within(MESSAGE_1)
    series = b"\x08\x01\x08\x02\x12" + bytes([len(sample)]) + sample
    body = b"\x2a" + bytes([len(series)]) + series + b"\x22\x00\x22\x08__name__\x22\x02up"
    assert rows(decode(body, MESSAGE_2)) == [("up", (), T * 1000, bits_of(2))]


def test_a_sample_written_otherwise():
    """Fields in another order, a field of another version, a number with needless bytes: the same sample."""
    value = b"\x09" + struct.pack("<d", 2.5)
    at = b"\x10" + _varint(T)
    usual = len(value + at)
    needless = b"\x10" + _varint(5)[:-1] + b"\x85\x80\x80\x80\x80\x00"
    for sample, expected in [
        (at + value, T),
        (value + at + b"\x18\x01", T),
        (b"\x10\x01" + value + at, T),
        (needless + value, 5),
        (value + b"\x10\x01\x1a\x03abc", 1),  # as long as usual, and not
        (value + needless, 5),
        (value, 0),
        (b"\x10" + _varint(2**64 - 5) + value, -5),
    ]:
        series = b"\x0a\x0e\x0a\x08__name__\x12\x02up\x12" + bytes([len(sample)]) + sample
        names = Names()
        for _ in range(2):
            assert rows(decode(b"\x0a" + bytes([len(series)]) + series, names=names)) == [
                ("up", (), expected * 1000, bits_of(2.5))
            ]
    assert usual == 16


def _varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@BOTH
@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ([("job", "a")], "name-missing"),
        ([("__name__", ""), ("job", "a")], "name-missing"),
        ([], "name-missing"),
        ([("__name__", "up"), ("a", "1"), ("a", "1")], "label-duplicate"),
        ([("__name__", "up"), ("__name__", "down")], "label-duplicate"),
        ([("__name__", "up"), ("", "1")], "label-invalid"),
        ([("__name__", "u\x00p")], "code-invalid"),
        ([("__name__", "u" * 201)], "code-invalid"),
        ([("__name__", "up"), ("a", "x" * 1001)], "label-invalid"),
        ([("__name__", "up"), *((f"l{n}", "x") for n in range(65))], "labels-too-many"),
    ],
)
def test_a_series_that_cant_be_taken(make, message, labels, code):
    """Its samples are rejected, by their number; what stands around it is taken."""
    body = make([(UP, [(T, 1)]), (labels, [(T, 2), (T, 0)]), (UP, [(T + 1, 3)])]).SerializeToString()
    names = Names()
    for _ in range(2):
        decoded = decode(body, message, names)
        assert [(each.index, each.code) for each in decoded.rejected] == [(1, code), (2, code)]
        assert decoded.values.tolist() == [1, 3]
        assert decoded.row.tolist() == [0, 3]
        assert len(decoded.keys) == 1


@pytest.mark.parametrize(("refs", "code"), [([1, 2, 3], "symbols-odd"), ([1, 99], "symbol-unknown")])
def test_references_that_lead_nowhere(refs, code):
    """The series is rejected, as Prometheus does, and the next one is taken."""
    request = request_2([(UP, [(T, 1)]), (UP, [(T, 2)])])
    del request.timeseries[0].labels_refs[:]
    request.timeseries[0].labels_refs.extend(refs)
    decoded = decode(request.SerializeToString(), MESSAGE_2)
    assert [(each.index, each.code) for each in decoded.rejected] == [(0, code)]
    assert decoded.values.tolist() == [2]


@BOTH
def test_times_beyond_what_can_be_kept(make, message):
    """Rejected one by one."""
    at = [T, 2**62, T + 1, -(2**62), AT_LAST_US // 1000 + 1]
    decoded = decode(make([(UP, [(each, 1) for each in at])]).SerializeToString(), message)
    assert [(each.index, each.code) for each in decoded.rejected] == [
        (1, "time-out-of-range"), (3, "time-out-of-range"), (4, "time-out-of-range")
    ]  # fmt: skip
    assert decoded.at_us.tolist() == [T * 1000, (T + 1) * 1000]
    assert decoded.row.tolist() == [0, 2]


@BOTH
def test_histograms_and_exemplars(make, message):
    """A native histogram is rejected, an exemplar is skipped, samples beside them are taken."""
    request = make([(UP, [(T, 1)]), (UP | {"le": "1"}, []), (UP, [(T + 1, 2)])])
    request.timeseries[0].exemplars.add(value=1, timestamp=T)
    request.timeseries[1].histograms.add(count_int=3, sum=1.5, timestamp=T)
    names = Names()
    for _ in range(2):
        decoded = decode(request.SerializeToString(), message, names)
        assert decoded.values.tolist() == [1, 2]
        assert [(each.index, each.code) for each in decoded.rejected] == [(1, "native-histogram")]
        assert decoded.skipped == 1


def test_metadata_of_1():
    """Help and unit by the family's name, and by the names that its series have. What can't be kept isn't told."""
    metadata = [
        {"type": 3, "metric_family_name": "http_seconds", "help": "How long.\nAnd more", "unit": "seconds"},
        {"type": 1, "metric_family_name": "jobs", "help": "Jobs."},
        {"type": 2, "metric_family_name": "temp", "unit": "C\x00"},
        {"type": 2, "metric_family_name": "temp", "help": "later"},
        {"type": 2, "help": "of nothing"},
    ]
    told = decode(write_request([], metadata).SerializeToString()).described
    http = Described("seconds", "How long.\nAnd more")
    assert told == {
        **{f"http_seconds{suffix}": http for suffix in ("", "_bucket", "_sum", "_count")},
        "jobs": Described("", "Jobs."),
        "jobs_total": Described("", "Jobs."),
        "temp": Described("", "later"),
    }


def test_metadata_of_2():
    """Help and unit of the series' metric."""
    request = request_2([(UP, [(T, 1)]), (UP | {"job": "b"}, [(T, 1)])], {"up": ("Whether it is up.", "")})
    assert decode(request.SerializeToString(), MESSAGE_2).described == {
        "up": Described("", "Whether it is up.")
    }
    request.timeseries[0].metadata.help_ref = 77
    request.timeseries[1].metadata.Clear()
    assert decode(request.SerializeToString(), MESSAGE_2).described == {}


@BOTH
def test_bounds(make, message):
    """No more samples, good and bad, than allowed; and a request may be empty."""
    body = make([(UP, [(T, 1)] * 3), ([("job", "a")], [(T, 1)])]).SerializeToString()
    assert len(decode(body, message, readings_max=4)) == 3
    for readings_max in (3, 2):
        with pytest.raises(TooLargeError):
            decode(body, message, readings_max=readings_max)
    assert len(decode(b"", message)) == 0


def test_the_other_message_is_noticed():
    """2.0's numbers of fields are none of 1.0's: no sample is lost without a word."""
    for make, message in ((request_2, MESSAGE_1), (write_request, MESSAGE_2)):
        with pytest.raises(MalformedError, match="does the Content-Type name the message"):
            decode(make([(UP, [(T, 1)])]).SerializeToString(), message)


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        (None, MESSAGE_1),
        ("", MESSAGE_1),
        ("application/x-protobuf", MESSAGE_1),
        ("application/octet-stream", MESSAGE_1),
        ("application/x-protobuf;proto=prometheus.WriteRequest", MESSAGE_1),
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", MESSAGE_2),
        ('application/x-protobuf; charset=x; Proto="io.prometheus.write.v2.Request"', MESSAGE_2),
    ],
)
def test_the_content_type_says_which_message(content_type, message):
    """1.0 where nothing is said."""
    assert message_of(content_type) == message


def test_another_message_is_no_media_we_take():
    """415, so that a sender may try another."""
    with pytest.raises(UnsupportedMediaError):
        message_of("application/x-protobuf;proto=io.prometheus.write.v3.Request")
