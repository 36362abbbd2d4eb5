"""The compiled decoders: that they are in use, what they keep, and that they touch no memory but theirs."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import pytest

import sanitizers
from meterite.model.columns import SeriesKey
from meterite.wire import _remote_write, compiled, line_protocol
from meterite.wire._line_protocol import Decoder
from meterite.wire.names import Names
from meterite.wire.remote_write import MESSAGE_1, decode_remote_write
from wire import prometheus_messages

ROOT = Path(__file__).parents[2]
WIRE = ROOT / "src" / "meterite" / "wire"
READINGS_MAX = 1_000_000


def lines(count, start=0):
    return b"".join(
        b"cpu,host=host-%d value=%d,idle=1.5 1000\n" % (n, n) for n in range(start, start + count)
    )


def write_request(series):
    return prometheus_messages.write_request(series).SerializeToString()


def listed(decoded):
    columns = (decoded.key_index, decoded.at_us, decoded.values, decoded.row)
    return decoded.keys, [column.tolist() for column in columns], decoded.skipped


def plain(body):
    return listed(line_protocol.decode_line_protocol(body, precision=None, readings_max=READINGS_MAX))


def test_the_extension_is_in_use():
    """``make setup`` built it: here a compiler is at hand."""
    assert compiled.COMPILED
    assert compiled.Lines().decode(b"m v=1", "ns", 1).keys == [SeriesKey("m_v")]
    assert compiled.Writes().decode(write_request([({"__name__": "m"}, [(1, 2.0)])]), 1).keys == [
        SeriesKey("m")
    ]


def test_without_the_extension(monkeypatch):
    """The plain decoders do the work."""
    monkeypatch.setattr(compiled, "_LINES", None)
    monkeypatch.setattr(compiled, "_WRITES", None)
    body = lines(3)
    assert listed(compiled.decode_line_protocol(body, precision=None, readings_max=10)) == plain(body)
    body = write_request([({"__name__": "m"}, [(1, 2.0)])])
    how = {"message": MESSAGE_1, "names": Names(), "readings_max": 10}
    assert listed(compiled.decode_remote_write(body, **how)) == listed(decode_remote_write(body, **how))


@pytest.mark.parametrize(
    "body",
    [
        b"m,a=1 v=1.5,w=-2i 1000\nm,a=1 v=2,w=3u\n",
        b'\xef\xbb\xbf\t m v=t,x="a \\" b\n c",w=F -1999\r\n\n# no\nn v=.5e-3',
        rb"m\ m,a\=b=\,c f\ f=1 1",
        b"m v=1767225600 1767225600000000t\nm v=0.1234567890123456789,w=123456789012345678901234567890",
        b"m v=9223372036854775807i,w=-9223372036854775808i,x=9999999999999999999u",
    ],
)
def test_what_is_compiled(body):
    """The common of line protocol needs no plain decoder."""
    decoded = compiled.Lines().decode(body, "ns", READINGS_MAX)
    assert decoded is not None
    assert listed(decoded) == plain(body)


@pytest.mark.parametrize(
    "body", [b"m v=nan", b"m v=x", b"m", b"m,a=\x01 v=1", b"m v=1 2 3", b"m,a=1,a=2 v=1"]
)
def test_what_is_in_doubt(body):
    """An error in a line is told by the plain decoder."""
    assert compiled.Lines().decode(lines(2) + body, "ns", READINGS_MAX) is None


def test_names_in_two_spellings():
    """Are one series, whatever the order of tags, and keep one place."""
    body = b"m,a=1,b=2 v=1\nm,b=2,a=1 v=2\nm\\,x v=3\nm,b=2,a=1,c= v=4"
    decoded = compiled.Lines().decode(body, "ns", READINGS_MAX)
    assert listed(decoded) == plain(body)
    assert decoded.key_index.tolist() == [0, 0, 1, 0]


def test_names_are_kept():
    """From body to body a series is the same object, in any order, and each body has its own places."""
    decoder = compiled.Lines()
    first = decoder.decode(lines(50), "ns", READINGS_MAX)
    kept = decoder.kept()
    backwards = b"\n".join(reversed(lines(50).splitlines()))
    again = decoder.decode(backwards, "ns", READINGS_MAX)
    assert listed(again) == plain(backwards)
    assert {id(key) for key in again.keys} == {id(key) for key in first.keys}
    assert decoder.kept() == kept
    assert kept[0] == 100


def test_no_more_is_kept_than_fits():
    """When it is full it is emptied, and that body is the plain decoder's; it never grows beyond."""
    decoder = compiled.Lines(100_000)
    doubts = 0
    for n in range(40):
        body = lines(20, start=20 * n)
        decoded = decoder.decode(body, "ns", READINGS_MAX)
        doubts += decoded is None
        if decoded is not None:
            assert listed(decoded) == plain(body)
        assert decoder.kept()[1] <= 100_000
    assert 1 <= doubts <= 20
    assert decoder.decode(lines(1000), "ns", READINGS_MAX) is None
    assert decoder.decode(lines(20), "ns", READINGS_MAX) is not None


def test_there_is_room_for_100_000_series():
    """With three labels, as agents write them: were there less, each request would drop what the next one needs."""
    lines, writes = compiled.Lines(), compiled.Writes()
    for n in range(1000):
        line = b"node_cpu_seconds_total_%d,host=host-%06d,rack=rack-%03d,region=eu-west value=1" % (n, n, n)
        lines.decode(line, "ns", READINGS_MAX)
        labels = {
            "__name__": f"node_cpu_seconds_total_{n}",
            "instance": f"host-{n:06}:9100",
            "job": "node",
            "mode": "user",
        }
        writes.decode(write_request([(labels, [(1000, 1.0)])]), READINGS_MAX)
    for decoder in (lines, writes):
        assert decoder.kept()[0] == 1000
        assert 100 * decoder.kept()[1] < compiled.KEPT_BYTES_MAX


def test_what_is_kept_costs_what_is_said():
    """The bound is one of real bytes: Python's objects are in it."""
    body = b"".join(b"cpu,host=host-%d,rack=r%d,region=eu-west usage=1\n" % (n, n % 7) for n in range(20_000))
    decoder = compiled.Lines()
    tracemalloc.start()
    try:
        assert decoder.decode(body, "ns", READINGS_MAX) is not None
        real = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert real <= decoder.kept()[1] <= 3 * real


def test_nothing_leaks():
    """What is decoded, doubted and forgotten leaves nothing."""
    bodies = [lines(30), lines(30) + b"m v=x", lines(30, start=1000), b'm t="x', b"\n"]
    decoder = compiled.Lines(20_000)

    def rounds(count):
        for _ in range(count):
            for body in bodies:
                decoder.decode(body, "ns", READINGS_MAX)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = rounds(20)
        assert rounds(200) - before < 20_000
    finally:
        tracemalloc.stop()


def test_a_call_within_a_call():
    """While names are parsed another thread may decode: that body is the plain decoder's."""
    inner = []

    def parse(raw):
        thread = threading.Thread(target=lambda: inner.append(decoder.decode(b"n v=1", "ns", 10)))
        thread.start()
        thread.join()
        return raw

    decoder = Decoder(
        parse, lambda parsed, name: SeriesKey((parsed + name).decode()), b"0" * 16, 1 << 20, 0, 1
    )
    keys, *_ = decoder.decode(b"m v=1", "ns", 10)
    assert (keys, inner) == ([SeriesKey("mv")], [None])


def test_errors_of_what_it_calls():
    """Go through, and leave it usable."""
    asked = []

    def parse(raw):
        asked.append(raw)
        if len(asked) == 1:
            raise RuntimeError
        return raw

    decoder = Decoder(parse, lambda _parsed, name: SeriesKey(name.decode()), b"0" * 16, 1 << 20, 0, 1)
    with pytest.raises(RuntimeError):
        decoder.decode(b"m v=1", "ns", 10)
    assert decoder.decode(b"m v=1", "ns", 10)[0] == [SeriesKey("v")]
    with pytest.raises(ValueError, match="unit"):
        decoder.decode(b"m v=1", "weeks", 10)
    with pytest.raises(TypeError):
        decoder.decode("m v=1", "ns", 10)


def written(count, start=0):
    series = [
        ({"__name__": f"up_{n}", "job": "node"}, [(1000 + n, n / 2), (2000, 0.0)])
        for n in range(start, start + count)
    ]
    return write_request(series)


def test_remote_write_keeps_names():
    """By the bytes of their labels, within the bound, from body to body."""
    decoder = compiled.Writes(100_000)
    first = decoder.decode(written(20), READINGS_MAX)
    again = decoder.decode(written(20), READINGS_MAX)
    assert listed(first) == listed(again)
    assert all(one is other for one, other in zip(first.keys, again.keys, strict=True))
    doubts = 0
    for n in range(40):
        body = written(20, start=20 * n)
        decoded = decoder.decode(body, READINGS_MAX)
        doubts += decoded is None
        if decoded is not None:
            how = {"message": MESSAGE_1, "names": Names(), "readings_max": READINGS_MAX}
            assert listed(decoded) == listed(decode_remote_write(body, **how))
        assert decoder.kept()[1] <= 100_000
    assert 1 <= doubts <= 20
    assert decoder.decode(written(1000), READINGS_MAX) is None


def test_remote_write_costs_what_is_said_and_leaks_nothing():
    """The bound is one of real bytes, and what is decoded or doubted leaves nothing."""
    body = write_request(
        [
            (
                {"__name__": f"up_{n % 50}", "instance": f"host-{n}:9100", "job": "node", "cpu": "1"},
                [(1, 1.0)],
            )
            for n in range(5000)
        ]
    )
    decoder = compiled.Writes()
    tracemalloc.start()
    try:
        assert decoder.decode(body, READINGS_MAX) is not None
        real = tracemalloc.get_traced_memory()[0]
        assert real <= decoder.kept()[1] <= 3 * real
        for _ in range(50):
            decoder.decode(body, READINGS_MAX)
            decoder.decode(body[:-1], READINGS_MAX)
        assert tracemalloc.get_traced_memory()[0] - real < 20_000
    finally:
        tracemalloc.stop()


def test_remote_write_and_errors_of_what_it_calls():
    """Go through, and no series is left without a name."""
    asked = []

    def parse(raw):
        asked.append(raw)
        if len(asked) == 2:
            raise RuntimeError
        return SeriesKey(f"s{len(asked)}")

    decoder = _remote_write.Decoder(parse, None, b"0" * 16, 1 << 20, 0, 1 << 50)
    with pytest.raises(RuntimeError):
        decoder.decode(written(2), 10)
    assert decoder.decode(written(2), 10)[0] == [SeriesKey("s3"), SeriesKey("s4")]


FORMATS = pytest.mark.parametrize(("form", "name"), [("lp", "_line_protocol"), ("rw1", "_remote_write")])


def fuzz(tmp_path, form, name, seconds, seed):
    """The extension as the sanitizers build it, for so long."""
    library = sanitizers.build(WIRE / f"{name}.c", tmp_path)
    return sanitizers.run(Path(__file__).with_name("fuzz_compiled.py"), form, library, seconds, seed)


@FORMATS
def test_under_sanitizers(tmp_path, form, name):
    """Any bytes: what the plain decoder says, no access beyond a bound, nothing that C leaves undefined."""
    assert "bodies" in fuzz(tmp_path, form, name, seconds=5, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(4200)
@FORMATS
def test_under_sanitizers_for_an_hour(tmp_path, form, name):
    """The same, for longer, and never the same bodies."""
    assert "bodies" in fuzz(tmp_path, form, name, seconds=3600, seed=os.getpid())
