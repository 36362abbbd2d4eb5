"""InfluxDB's line protocol."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError, MeteriteError, TooLargeError
from meterite.wire import compiled, line_protocol
from meterite.wire.line_protocol import decode_line_protocol
from meterite.wire.names import Names
from wire.known_names import check_known_names

CORPUS = Path(__file__).parent / "corpus" / "lp"
READINGS_MAX = 1_000_000
T_US = 1767225600 * 10**6


def decode(body, precision=None, readings_max=READINGS_MAX):
    """What the plain decoder says, and the compiled one in front of it says as well."""
    decoded = decode_line_protocol(body, precision=precision, readings_max=readings_max)
    again = compiled.decode_line_protocol(body, precision=precision, readings_max=readings_max)
    assert outcome(again) == outcome(decoded)
    return decoded


def rows(decoded):
    """Each reading as (line, code, labels, time, value)."""
    keys = [decoded.keys[place] for place in decoded.key_index.tolist()]
    columns = (decoded.row.tolist(), decoded.at_us.tolist(), decoded.values.tolist())
    return [
        (line, key.code, dict(key.labels), None if at_us == NO_TIME else at_us, value)
        for key, line, at_us, value in zip(keys, *columns, strict=True)
    ]


def readings(body, precision=None):
    decoded = decode(body, precision)
    assert decoded.rejected == []
    return [row[1:] for row in rows(decoded)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"cpu value=1.5", ("cpu", {}, None, 1.5)),
        (b"cpu usage=1.5", ("cpu_usage", {}, None, 1.5)),
        (b"cpu,host=a,az=b usage=1 5000", ("cpu_usage", {"host": "a", "az": "b"}, 5, 1.0)),
        (b"cpu,host= usage=1", ("cpu_usage", {}, None, 1.0)),
        (b"\xef\xbb\xbf \t cpu value=1 -1 \r\n", ("cpu", {}, -1, 1.0)),
        (b"cpu   value=1   5999", ("cpu", {}, 5, 1.0)),
        (rb"my\ cpu\,x,ho\=s\ t=a\,b=\=c v=1".replace(b"b=", b"b\\="), ("my cpu,x_v", {"ho=s t": "a,b==c"}, None, 1.0)),
        (rb"m,path=C:\\a\b v=1", ("m_v", {"path": r"C:\\a\b"}, None, 1.0)),
        (rb'm,q="a" v=1', ("m_v", {"q": '"a"'}, None, 1.0)),
        (rb"m a\ b=1", ("m_a b", {}, None, 1.0)),
        (rb"m\=x v=1", ("m=x_v", {}, None, 1.0)),
        ("température,où=là °C=1".encode(), ("température_°C", {"où": "là"}, None, 1.0)),
    ],
)  # fmt: skip
def test_names(body, expected):
    """Code is measurement and field, or the measurement alone; tags are labels; escapes, quotes and UTF-8 in them."""
    assert readings(body) == [expected]


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("1", 1.0), ("-1.5", -1.5), ("+2", 2.0), ("1e3", 1000.0), ("1.E-3", 0.001), (".5", 0.5),
        ("1" * 300, float("1" * 300)),
        ("42i", 42.0), ("-42i", -42.0), ("42u", 42.0), ("9223372036854775807i", 2.0**63),
        ("18446744073709551615u", 2.0**64),
        ("1767225600000000t", float(T_US)), ("1767225600000000999n", float(T_US)),
        ("t", 1.0), ("T", 1.0), ("true", 1.0), ("True", 1.0), ("TRUE", 1.0),
        ("f", 0.0), ("F", 0.0), ("false", 0.0), ("False", 0.0), ("FALSE", 0.0),
    ],
)  # fmt: skip
def test_values(token, value):
    """Floats, both integers, switches as 1 and 0, QuestDB's times as the number of µs."""
    assert readings(f"m v={token}".encode()) == [("m_v", {}, None, value)]


def test_texts_cost_nothing():
    """A text is skipped and counted; the numbers beside it are kept. It may hold anything, line feeds, too."""
    body = b'm a="x, y=1 \\" \\\\",b=1,c="two\nlines v=1\n" 1000\nm d=2\nn e=""\n'
    decoded = decode(body)
    assert [row[:2] for row in rows(decoded)] == [(1, "m_b"), (4, "m_d")]
    assert (decoded.rejected, decoded.skipped, decoded.counted) == ([], 3, "line")


@pytest.mark.parametrize(
    ("precision", "time", "unit"),
    [
        *((word, 1767225600 * 10**9, "ns") for word in (None, "", "n", "ns", "nanosecond")),
        *((word, 1767225600 * 10**6, "us") for word in ("u", "us", "µ", "µs", "microsecond")),
        *((word, 1767225600 * 10**3, "ms") for word in ("ms", "millisecond")),
        *((word, 1767225600, "s") for word in ("s", "second")),
        ("m", 1767225600 // 60, None),
        ("h", 1767225600 // 3600, None),
        *(("auto", 1767225600 * 10**n, None) for n in (0, 3, 6, 9)),
    ],
)
def test_precisions(precision, time, unit):
    """Each version's words; the unit is told where it could be another one's."""
    decoded = decode(b"m v=1 %d" % time, precision)
    assert (decoded.at_us.tolist(), decoded.unit) == ([T_US], unit)


def test_no_precision():
    """Refused whole: no time could be read."""
    with pytest.raises(InvalidInputError) as caught:
        decode(b"m v=1", "days")
    assert (caught.value.code, caught.value.place) == ("precision-invalid", ("query", "precision"))


def test_times_of_questdb():
    """A suffix tells a time's own unit."""
    assert [row[2] for row in readings(b"m v=1 1767225600000000t\nm v=1 1767225600000000000n", "s")] == [
        T_US,
        T_US,
    ]


def test_what_is_no_line():
    """Comments, blank lines, white space before a measurement, CR LF; lines are counted all the same."""
    decoded = decode(b'# m v="\r\n\r\n \t\n  # n\n\tm v=1\r\n\n m v=2')
    assert [(row[0], row[4]) for row in rows(decoded)] == [(5, 1.0), (7, 2.0)]
    assert decoded.rejected == []
    assert readings(b"") == readings(b"\n") == []


@pytest.mark.parametrize(
    ("line", "column", "code"),
    [
        (b"m", 2, "line-invalid"),
        (b"m ", 3, "line-invalid"),
        (b",a=1 v=1", 1, "line-invalid"),
        (b"m,a v=1", 2, "line-invalid"),
        (b"m,=a v=1", 2, "line-invalid"),
        (b"m, v=1", 2, "line-invalid"),
        (b"m,a=b=c v=1", 6, "line-invalid"),
        (b"m,a=1,a=2 v=1", 6, "label-invalid"),
        (b"m,a=\x01 v=1", 1, "label-invalid"),
        (b"m v", 4, "line-invalid"),
        (b"m v=", 5, "line-invalid"),
        (b"m =1", 3, "line-invalid"),
        (b"m v=1,", 7, "line-invalid"),
        (b"m v=1,,w=2", 7, "line-invalid"),
        (b"m v=a", 5, "line-invalid"),
        (b"m v=1_0", 5, "line-invalid"),
        (b"m v=0x1", 5, "line-invalid"),
        (b"m v=1.5i", 5, "line-invalid"),
        (b"m v=tru", 5, "line-invalid"),
        (b"m v=.", 5, "line-invalid"),
        (b"m v=1e", 5, "line-invalid"),
        (b'm v="a"b', 8, "line-invalid"),
        (b'm v="a', 5, "line-invalid"),
        (b"m v=NaN", 5, "reading-invalid"),
        (b"m v=-Inf", 5, "reading-invalid"),
        (b"m v=1e999", 5, "reading-invalid"),
        (b"m v=-1u", 5, "reading-invalid"),
        (b"m v=9223372036854775808i", 5, "reading-invalid"),
        (b"m v=" + b"9" * 50 + b"u", 5, "reading-invalid"),
        (b"m v=1 1.5", 7, "time-invalid"),
        (b"m v=1 now", 7, "time-invalid"),
        (b"m v=1 1 2", 6, "line-invalid"),
        (b"m v=1 9999999999999999999", 7, "time-out-of-range"),
        (b"m v=1 " + b"9" * 50, 7, "time-out-of-range"),
        ("m,ä=ö v=\u00b5".encode(), 9, "line-invalid"),
        (b"m \xff=1", 3, "not-utf-8"),
        (b"m,a=\xff v=1", 2, "not-utf-8"),
        (b"\xff v=1", 1, "not-utf-8"),
        (b"m" * 201 + b" v=1", 203, "code-invalid"),
    ],
)  # fmt: skip
def test_what_is_rejected(line, column, code):
    """The line alone, whole, with its number, a column in characters and a stable code."""
    decoded = decode(b"before v=1\n" + line + b"\n")
    (rejected,) = decoded.rejected
    assert (rejected.index, rejected.code) == (2, code)
    assert rejected.reason.startswith(f"Line 2, column {column}: ")
    assert len(rejected.reason) < 200
    assert [row[1] for row in rows(decoded)] == ["before_v"]


@pytest.mark.parametrize(
    ("precision", "time", "looks_like"),
    [("ms", 1769860800 * 10**9, "ns"), ("s", 1769860800 * 10**6, "us"), ("s", 1769860800 * 10**3, "ms")],
)
def test_times_out_of_range_by_their_unit(precision, time, looks_like):
    """Are told which unit they look like."""
    (rejected,) = decode(b"m v=1 %d" % time, precision).rejected
    assert rejected.code == "time-unit"
    assert f"looks like {looks_like}" in rejected.reason
    assert f", or add ?precision={looks_like}." in rejected.reason


def test_a_rejected_line_leaves_nothing():
    """Neither the good fields beside the bad one, nor a series that a metric would be made for."""
    decoded = decode(b"m a=1,b=NaN\nm,x=1 c=1 never\nn v=1")
    assert [key.code for key in decoded.keys] == ["n_v"]
    assert [rejected.index for rejected in decoded.rejected] == [1, 2]


@pytest.mark.parametrize(
    "broken",
    [
        b'm a=NaN,t="x\ninjected v=1\n"',
        b'm a="x"y,t="\ninjected v=1\n"',
        b'm \x01=1,t="\\"\ninjected v=1\n"',
        b'm,a t="\ninjected v=1\n"',
    ],
)
def test_texts_of_broken_lines_are_no_lines(broken):
    """What stands in quotes is never read as a line, whatever is wrong beside it."""
    decoded = decode(broken + b" 1000\nafter v=1")
    assert len(decoded.rejected) == 1
    assert [row[:2] for row in rows(decoded)] == [(4, "after_v")]


def test_a_quote_that_is_missing():
    """All that follows may be its text, as InfluxDB reads it; a quote within a tag opens none."""
    decoded = decode(b'm v=1\nm t="x\nn v=1\n')
    assert [row[1] for row in rows(decoded)] == ["m_v"]
    decoded = decode(b'weather,at="here there v=1\nn v=1\n')
    assert [row[1] for row in rows(decoded)] == ["n_v"]


def test_bounds():
    """No more readings than a request may have, good and bad."""
    for body in (b"m a=1,b=2\nm v=1", b"m\nm\nm", b"m v=1\nm v=1\nm v=1", b"m a=1,b=2\nm a=1,b=2"):
        for either in (decode_line_protocol, compiled.decode_line_protocol):
            with pytest.raises(TooLargeError):
                either(body, precision=None, readings_max=2)
    assert len(decode(b"m a=1,b=2\n", readings_max=2)) == 2


HUGE = 10_000_000


@pytest.mark.parametrize(
    "body",
    [
        b"m,a=" + b"a" * HUGE + b" v=1",
        b"m," + b"a" * HUGE + b"=1 v=1",
        b"m," + b",".join(b"a%d=1" % n for n in range(100_000)) + b" v=1",
        b"m v=" + b"1" * HUGE,
        b"m v=1 " + b"1" * HUGE,
        b'm v="' + b"\\" * HUGE,
        b'm v="' + b"\\a" * (HUGE // 2) + b'"',
        b'm v="\\"\n' * (HUGE // 100),
        b'm v=x,a="\n' * (HUGE // 100),
        b"\\" * HUGE,
        b" " * HUGE,
        b"m" + b" " * HUGE,
        b"m v=1" + b" " * HUGE + b"x",
        b"m=" * (HUGE // 2),
        b"m v=1," * (HUGE // 6),
        b"m v=1,v" * (HUGE // 100),
        b"\n" * (HUGE // 20),
        b"#" * HUGE,
        b"m v=1i" * (HUGE // 6),
    ],
    ids=lambda body: f"{body[:12]!r}",
)
def test_time_is_linear(body):
    """10 MB take no more than what passing over them takes (quadratic ones would take hours)."""
    began = time.process_time()
    with contextlib.suppress(TooLargeError):
        decode_line_protocol(body, precision=None, readings_max=READINGS_MAX)
    compiled.Lines().decode(body, "ns", READINGS_MAX)
    assert time.process_time() - began < 10


def exactly(body, precision=None):
    """What comes of it without the plain way."""
    lines = line_protocol._Lines(body, line_protocol.time_unit(precision), READINGS_MAX, Names().known())
    lines._take = lambda _found, _line: False
    return lines.read()


def outcome(decoded):
    named = [(key.code, key.labels) for key in decoded.keys]
    return rows(decoded), decoded.rejected, decoded.skipped, named, decoded.counted, decoded.unit


words = st.sampled_from(
    ["m", "cpu", "v", "value", ",a=1", ",b=x y", "=", ",", " ", "  ", "\t", "\n", "\r\n", "#", '"', '\\"', "\\", "\\,",
     "\\ ", "1", "1.5", "-2e3", "1i", "-1i", "1u", "-1u", "5t", "true", "t", "nan", "1e400", "9" * 19, "0" * 31,
     "é", "\x00",
     "m v=1 1000\n", "m,a=1 v=1,w=2 1000\n", "m,a=1 v=1i,w=2u\n", 'm v=1,t="x"\n', "m v=1 9223372036854775807\n"]
)  # fmt: skip
texts = st.lists(words, max_size=30).map("".join).map(str.encode) | st.binary(max_size=60)


@given(texts, st.sampled_from([None, "ms", "s", "h", "auto"]))
@settings(max_examples=400)
def test_the_plain_way_is_the_exact_way(body, precision):
    """The same readings, in the same order, and the same rejections for any bytes; and no error."""
    assert outcome(decode(body + b"\n" + body, precision)) == outcome(exactly(body + b"\n" + body, precision))


@given(st.lists(texts, min_size=2, max_size=4), st.sampled_from([None, "ms", "auto"]))
@example([b"m a=1,c=1", b"m a=1,b=2,c=3\nm b=1"], None)
@example([b"m a=1 9", b"m a=1 9223372036854775807\nm b=1"], "s")
def test_known_names_change_nothing(bodies, precision):
    """Whatever came before; the order of keys is the same, too."""
    decode = functools.partial(decode_line_protocol, precision=precision, readings_max=READINGS_MAX)
    check_known_names([(decode, body) for body in bodies])
    names = Names()
    for body in bodies * 2:
        assert outcome(decode(body, names=names)) == outcome(exactly(body, precision))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@given(texts, st.sampled_from([None, "ms", "s", "h", "auto"]))
@settings(max_examples=100_000, deadline=None)
def test_the_plain_way_is_the_exact_way_for_long(body, precision):
    """The same, for longer."""
    assert outcome(decode(body + b"\n" + body, precision)) == outcome(exactly(body + b"\n" + body, precision))


@given(texts)
def test_lines_stand_by_themselves(body):
    """Without quotes, a body is what its lines are one by one."""
    body = body.replace(b'"', b"")
    lines = body.split(b"\n")
    alone = []
    for number, line in enumerate(lines, 1):
        decoded = decode((b"\xef\xbb\xbf" if number > 1 else b"") + line)
        alone += [(number, *row[1:]) for row in rows(decoded)]
    assert rows(decode(body)) == alone


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8).filter(
    lambda text: not text.endswith("\\") and not text.startswith(("#", "\ufeff"))
)
points = st.tuples(
    names,
    st.dictionaries(names, names, max_size=3),
    st.dictionaries(
        names,
        st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(-(2**63), 2**63 - 1)
        | st.booleans()
        | st.text(max_size=5),
        min_size=1,
        max_size=4,
    ),
    st.none() | st.integers(-(2**60), 2**60),
)


def escaped(name):
    return re.sub(r"([,= ])", r"\\\1", name)


def written(value):
    if isinstance(value, bool):
        return "true" if value else "f"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def encode(measurement, tags, fields, time_ns):
    """A line as clients write it."""
    tags = "".join(f",{escaped(name)}={escaped(value)}" for name, value in tags.items())
    fields = ",".join(f"{escaped(name)}={written(value)}" for name, value in fields.items())
    return f"{escaped(measurement)}{tags} {fields}{'' if time_ns is None else f' {time_ns}'}"


@given(st.lists(points, max_size=5), st.sampled_from(["\n", "\r\n", "\n\n# c\n"]))
def test_round_trip(points, between):
    """What clients write comes out: names with any characters that can be kept, every kind of value."""
    body = between.join(encode(*point) for point in points).encode()
    expected = [
        (measurement if field == "value" else f"{measurement}_{field}", tags, at, float(value))
        for measurement, tags, fields, time_ns in points
        for field, value in fields.items()
        for at in [None if time_ns is None else time_ns // 1000]
        if not isinstance(value, str)
    ]
    decoded = decode(body)
    assert decoded.rejected == []
    assert [row[1:] for row in rows(decoded)] == expected
    assert decoded.skipped == sum(isinstance(v, str) for _, _, fields, _ in points for v in fields.values())


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.lp")), ids=lambda path: path.stem)
def test_both_ways_read_the_corpus(path):
    """Alike; what they read is in ``test_corpus.py``."""
    body = path.read_bytes()
    assert outcome(decode(body)) == outcome(exactly(body))


@given(st.binary(max_size=200))
def test_any_bytes(body):
    """Give columns or an error of ours."""
    with contextlib.suppress(MeteriteError):
        decode(body, "ms")
