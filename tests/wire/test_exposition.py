"""The text formats of exposition."""

from __future__ import annotations

import functools
import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME, Described, SeriesKey
from meterite.model.errors import MalformedError, MeteriteError, TooLargeError
from meterite.model.time import AT_LAST_US
from meterite.wire.exposition import decode_exposition, is_openmetrics
from wire.known_names import check_known_names

PLAIN, OPEN = {"readings_max": 10_000}, {"readings_max": 10_000, "openmetrics": True}


def key(code, **labels):
    return SeriesKey(code, tuple(sorted(labels.items())))


def rows(decoded):
    """(code, labels, time, value) of each reading."""
    return [
        (decoded.keys[n].code, dict(decoded.keys[n].labels), None if at == NO_TIME else at, value)
        for n, at, value in zip(
            decoded.key_index.tolist(), decoded.at_us.tolist(), decoded.values.tolist(), strict=True
        )
    ]


def one(line, **options):
    """The only reading of a line."""
    decoded = decode_exposition(line.encode(), **(PLAIN | options))
    assert decoded.rejected == []
    (row,) = rows(decoded)
    return row


@pytest.mark.parametrize(
    ("line", "code", "labels"),
    [
        ("a 1", "a", {}),
        ("a:b_9 1", "a:b_9", {}),
        ("a{} 1", "a", {}),
        ('  a { x = "1" , y="2" , } 1', "a", {"x": "1", "y": "2"}),
        ('a{x="1"}1', "a", {"x": "1"}),
        ("a\t1", "a", {}),
        ('a{x="\\\\n\\"}{"} 1', "a", {"x": '\\n"}{'}),
        ('a{x="",y="é"} 1', "a", {"y": "é"}),
        ('{"a.b"} 1', "a.b", {}),
        ('{"a b",x="1","y.z"="2"} 1', "a b", {"x": "1", "y.z": "2"}),
        ('a{"y\\"z"="2"} 1\r', "a", {'y"z': "2"}),
    ],
)
def test_series(line, code, labels):
    """Names and labels, bare and in quotes; blanks between the parts; an empty label is none."""
    assert one(line)[:2] == (code, labels)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-1.5e-3", -0.0015),
        ("+Inf", math.inf),
        ("-inf", -math.inf),
        ("NaN", math.nan),
        (".5", 0.5),
    ],
)
def test_values(text, value):
    """Numbers as Go reads them, NaN and infinities included."""
    assert repr(one(f"a {text}")[3]) == repr(value)


@pytest.mark.parametrize(
    ("text", "at_us", "options"),
    [
        ("1767225600123", 1767225600_123_000, PLAIN),
        ("-1", -1000, PLAIN),
        ("1767225600", 1767225600_000_000, OPEN),
        ("1767225600.1234567", 1767225600_123_456, OPEN),
        ("-0.0000001", -1, OPEN),
        ("1.5e3", 1500_000_000, OPEN),
        ("5.", 5_000_000, OPEN),
    ],
)
def test_times(text, at_us, options):
    """Milliseconds in 0.0.4, seconds in OpenMetrics, floored to the microsecond."""
    end = "\n# EOF\n" if options is OPEN else ""
    assert one(f"a 1 {text}{end}", **options)[2] == at_us


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ('{a="b"} 1', 2),
        ("9a 1", 1),
        ("é 1", 1),
        ("a-b 1", 2),
        ("a{x} 1", 3),
        ("a{x=1} 1", 3),
        ("a{x='1'} 1", 3),
        ('a{x="1" y="2"} 1', 3),
        ('a{x="1",,} 1', 9),
        ("a{,} 1", 3),
        ('a{x="1" 1', 3),
        ('a{x="1', 3),
        ('a{x="\\q"} 1', 6),
        ('a{x="1",x="2"} 1', 9),
        ('a{__name__="b"} 1', 3),
        ("a", 2),
        ("a{}", 4),
        ("a 1 2 3", 3),
        ("a 1_0", 3),
        ("a ١", 3),
    ],
)
def test_what_is_no_sample(line, column):
    """The line is rejected with its number and the column, and costs nothing else."""
    decoded = decode_exposition(f"b 1\n{line}\nb 2\n".encode(), **PLAIN)
    assert [value for *_, value in rows(decoded)] == [1.0, 2.0]
    assert decoded.keys == [key("b")]
    (rejected,) = decoded.rejected
    assert (rejected.index, rejected.code) == (2, "exposition-invalid")
    assert rejected.reason.startswith(f"Column {column}: "), rejected.reason


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("a x", "exposition-invalid"),
        ("a 0x1p3", "exposition-invalid"),
        ("a 1 1.5", "time-invalid"),
        ("a 1 99999999999999999", "time-out-of-range"),
        ("a 1 99999999999999999999", "time-invalid"),
        ('{""} 1', "code-invalid"),
        ('a{""="1"} 1', "label-invalid"),
        ('a{x="1\\n2"} 1', "label-invalid"),
        (f'a{{x="{"y" * 1001}"}} 1', "label-invalid"),
        ("a{" + ",".join(f'l{n}="1"' for n in range(65)) + "} 1", "labels-too-many"),
        (f"{'a' * 201} 1", "code-invalid"),
    ],
)
def test_what_can_t_be_kept(line, code):
    """Each by its own code."""
    (rejected,) = decode_exposition(line.encode(), **PLAIN).rejected
    assert rejected.code == code


def test_a_known_series_is_read_as_a_new_one_is():
    """What follows a series that was met is checked as behind a new one, whatever the line looks like."""
    lines = [
        "a 1",
        "a} 1",
        "a  2 ",
        "a{} 3",
        "a{}x",
        "a{} 4 5 6",
        "a{}} 5",
        'a{x="1"} 6',
        'a{x="1"} 7 1',
        "a 8 2",
    ]
    together = decode_exposition("\n".join(lines).encode(), **PLAIN)
    alone = [decode_exposition(line.encode(), **PLAIN) for line in lines]
    assert rows(together) == [row for decoded in alone for row in rows(decoded)]
    assert [(r.code, r.reason) for r in together.rejected] == [
        (r.code, r.reason) for decoded in alone for r in decoded.rejected
    ]


def test_what_describes():
    """HELP and UNIT of a family are told of its samples' codes; of counts there is no unit. TYPE decides nothing."""
    body = (
        '# HELP h_seconds How long\\n\\\\it \\"took\\".\n# TYPE h_seconds histogram\n# UNIT h_seconds seconds\n'
        'h_seconds_bucket{le="+Inf"} 2\nh_seconds_count 2\nh_seconds_sum 3\nh_seconds_created 1\n'
        '# HELP "a.b" Dots.\n{"a.b"} 1\n# UNIT c_total bytes\nc_total 1\n#HELP nobody x\n'
        "# HELP\n# a comment\nd 1\n# EOF"
    )
    said = 'How long\n\\it "took".'
    assert decode_exposition(body.encode(), **OPEN).described == {
        "h_seconds_bucket": Described("", said),
        "h_seconds_count": Described("", said),
        "h_seconds_sum": Described("seconds", said),
        "h_seconds_created": Described("", said),
        "a.b": Described("", "Dots."),
        "c_total": Described("bytes", ""),
    }


def test_words_that_can_t_be_kept_cost_no_reading():
    """A description that is too long tells nothing."""
    decoded = decode_exposition(f"# HELP a {'x' * 10_001}\na 1\n".encode(), **PLAIN)
    assert (len(decoded), decoded.described) == (1, {})


def test_exemplars_are_skipped():
    """Counted, and checked as the rest of the line is; in 0.0.4 there are none."""
    lines = [
        'a_bucket{le="1"} 1 # {trace_id="x}"} 0.5 12.5',
        "b_total 2 3 # {} 1",
        "c_total 1 # 5",
        "d_total 1 # {x=} 5",
        "e_total 1 # {} 5 6 7",
        "f_total 1 # {} x",
    ]
    decoded = decode_exposition("\n".join([*lines, "# EOF"]).encode(), **OPEN)
    assert rows(decoded) == [("a_bucket", {"le": "1"}, None, 1.0), ("b_total", {}, 3_000_000, 2.0)]
    assert [r.index for r in decoded.rejected] == [3, 4, 5, 6]
    assert decoded.skipped == 2
    assert len(decode_exposition(lines[1].encode(), **PLAIN).rejected) == 1


def test_an_openmetrics_escape_stands_for_itself():
    """A backslash before another character is one."""
    assert one('a{x="\\d"} 1\n# EOF', **OPEN)[1] == {"x": "\\d"}


@pytest.mark.parametrize("body", [b"", b"a 1\n", b"a 1\n# EOF\nb 1\n", b"a 1\n# EO", b"# EOFF"])
def test_openmetrics_that_was_cut_short(body):
    """Without its end nothing is taken."""
    with pytest.raises(MalformedError, match="cut short"):
        decode_exposition(body, **OPEN)


@pytest.mark.parametrize(
    ("body", "content_type", "openmetrics"),
    [
        (b"a 1\n# EOF\n", "", True),
        (b"a 1\n# EOF", "text/plain", True),
        (b"a 1\n# EOF\n\n", "application/x-www-form-urlencoded", True),
        (b"a 1\n", "text/plain", False),
        (b"a 1\n", "application/openmetrics-text", True),
        (b"", "", False),
    ],
)
def test_which_format_a_body_is(body, content_type, openmetrics):
    """Its end says so; where that is missing, what it is called does."""
    assert is_openmetrics(body, content_type) is openmetrics


def test_labels_that_stand_above_the_bodys():
    """They take its place, and where they are empty, they take it away. What becomes one series is one."""
    body = b'a{job="x",i="1"} 1\na{i="2"} 2\n'
    decoded = decode_exposition(body, **PLAIN, labels={"job": "y", "i": ""})
    assert decoded.keys == [key("a", job="y")]
    assert decoded.values.tolist() == [1.0, 2.0]


def test_a_time_for_those_without():
    """What is given stands where the line says none."""
    body = b"a 1\na 2 7\n"
    assert decode_exposition(body, **PLAIN, at_us=5).at_us.tolist() == [5, 7000]


def test_bounds():
    """Readings good and bad are counted; a body of more lines than could be taken isn't looked at."""
    assert len(decode_exposition(b"a 1\n" * 5, readings_max=5)) == 5
    for body in (b"a 1\n" * 6, b"?\n" * 6, b"a 1\n?\n" * 3, b"\n" * 2_000_001):
        with pytest.raises(TooLargeError):
            decode_exposition(body, readings_max=5)


def test_bytes_that_are_no_text():
    """The line is named."""
    with pytest.raises(MalformedError, match="Line 2 is not UTF-8"):
        decode_exposition(b'a 1\nb{x="\xff"} 1\n', **PLAIN)


def test_lines_and_units_are_told():
    """Places are lines; the lead's check of magnitudes knows which unit times were said to have."""
    decoded = decode_exposition(b"\na 1\n\nb 2\n", **PLAIN)
    assert (decoded.counted, decoded.row.tolist(), decoded.unit) == ("line", [2, 4], "ms")
    assert decode_exposition(b"# EOF", **OPEN).unit == "s"


NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
SAMPLES = st.lists(
    st.tuples(
        NAMES | TEXTS.filter(lambda text: text not in {".", ".."}),
        st.dictionaries(TEXTS.filter(lambda name: name != "__name__"), TEXTS, max_size=4),
        st.none() | st.integers(-(10**12), AT_LAST_US // 1000),
        st.floats(),
    ),
    max_size=10,
)


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def encode(code, labels, at_ms, value, *, openmetrics):
    """A line as a client would write it."""
    pairs = [f"{quoted(name)}={quoted(text)}" for name, text in labels.items()]
    bare = code.isascii() and code.replace(":", "_").isidentifier()
    series = f"{code}{{{','.join(pairs)}}}" if bare else "{" + ",".join([quoted(code), *pairs]) + "}"
    when = "" if at_ms is None else f" {at_ms / 1000 if openmetrics else at_ms}"
    return f"{series} {value!r}{when}"


@pytest.mark.parametrize("openmetrics", [False, True])
@given(samples=SAMPLES)
def test_round_trip(samples, openmetrics):
    """What was written is what is read."""
    lines = [encode(*sample, openmetrics=openmetrics) for sample in samples]
    body = "\n".join([*lines, *(["# EOF"] if openmetrics else [])])
    decoded = decode_exposition(body.encode(), readings_max=100, openmetrics=openmetrics)
    assert decoded.rejected == []
    wanted = [
        (code, dict(sorted(labels.items())), None if at_ms is None else at_ms * 1000, value)
        for code, labels, at_ms, value in samples
    ]
    assert repr(rows(decoded)) == repr(wanted)


PIECES = st.sampled_from(
    [
        "a",
        "{",
        "}",
        '"',
        "\\",
        ",",
        "=",
        " ",
        "\n",
        "#",
        "# HELP a b",
        "1",
        "-",
        "NaN",
        "e9",
        "\t",
        "é",
        "# EOF",
        "\r",
    ]
)


BODIES = st.binary(max_size=60) | st.lists(PIECES, max_size=40).map("".join).map(str.encode)


def is_sound(body, options):
    """Columns, or an error of ours; of every line at most one thing is said."""
    try:
        decoded = decode_exposition(body, **options)
    except MeteriteError:
        return
    said = [*decoded.row.tolist(), *(r.index for r in decoded.rejected)]
    assert len(said) == len(set(said))
    assert set(decoded.key_index.tolist()) == set(range(len(decoded.keys)))
    if options is PLAIN:  # a series that was met reads as it did when it was new
        again = decode_exposition(body + b"\n" + body, **options)
        assert repr(rows(again)) == repr(rows(decoded) * 2)


@pytest.mark.parametrize("options", [PLAIN, OPEN], ids=["plain", "open"])
@given(body=BODIES)
def test_any_bytes(body, options):
    is_sound(body, options)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("options", [PLAIN, OPEN], ids=["plain", "open"])
@given(body=BODIES)
@settings(max_examples=100_000, deadline=None)
def test_any_bytes_for_long(body, options):
    is_sound(body, options)


NAMED = st.sampled_from(
    [
        "a",
        "a{}",
        'a{x="1"}',
        'a{x="1",}',
        '{"a",x="1"}',
        'a {x="1"}',
        'a{x="\\\\"}',
        'a{x="\\y"}',
        'b{x="}"}',
        "é",
        "a_total",
    ]
)
FOLLOWED = st.sampled_from(
    [
        "",
        " ",
        " 1",
        "1",
        "\t1",
        " 1 5",
        " 1 5 6",
        " 1_0",
        " NaN",
        " x",
        " 1 x",
        " 1 # {} 1",
        " # {} 1",
        ' 1 # {b="}"} 1 5',
        " 1\r",
    ]
)
LINES = st.tuples(NAMED, FOLLOWED).map("".join) | st.sampled_from(
    ["# HELP a b", "# UNIT a_total s", "", "a 1"]
)
REQUESTS = st.tuples(
    st.lists(LINES, max_size=6).map("\n".join) | st.lists(PIECES, max_size=20).map("".join),
    st.booleans(),
    st.sampled_from([{}, {"x": "2"}, {"x": ""}, {"job": "é", "x": "1"}]),
)


@given(requests=st.lists(REQUESTS, min_size=2, max_size=4))
@example(requests=[('a{x="\\y"} 1', True, {}), ('a{x="\\y"} 1', False, {})])
def test_known_names_change_nothing(requests):
    """Whatever was read before, in this format or the other, under these labels or others."""
    check_known_names(
        [
            (
                functools.partial(decode_exposition, readings_max=7, openmetrics=openmetrics, labels=labels),
                (text + "\n# EOF" * openmetrics).encode(),
            )
            for text, openmetrics, labels in requests
        ]
    )


HOSTILE = {
    "a long label": lambda n: b'a{x="' + b"y" * n + b'"} 1',
    "escapes": lambda n: b'a{x="' + b"\\\\" * (n // 2) + b'"} 1',
    "an open quote": lambda n: b'a{x="' + b"\\a" * (n // 2),
    "many labels": lambda n: b"a{" + b"".join(b'l%d="",' % m for m in range(n // 10)) + b"} 1",
    "blanks": lambda n: b"a" + b" " * n + b"{",
    "braces": lambda n: b"a" + b"{" * n + b"}" * n,
    "commas": lambda n: b"a{" + b"," * n + b"} 1",
    "a long number": lambda n: b"a " + b"1" * n + b" 5",
    "a long time": lambda n: b"a 1 1." + b"1" * n,
    "exemplars": lambda n: b"a 1 " + b"# {} " * (n // 5),
    "help": lambda n: b"# HELP a " + b"\\" * n,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("options", [PLAIN, OPEN], ids=["plain", "open"])
def test_time_is_linear(make, options):
    """Eight times as much takes about eight times as long, of what a quadratic reader would choke on."""
    end = b"\n# EOF" if options is OPEN else b""

    def seconds(n):
        body = make(n) + end
        begin = time.process_time()
        decode_exposition(body, **options)
        return time.process_time() - begin

    short = min(seconds(100_000) for _ in range(3))
    assert min(seconds(800_000) for _ in range(2)) < 30 * max(short, 0.001)


def test_ten_megabytes_in_one_label_and_many_labels():
    """Refused with a short word, in little time."""
    for body in (
        b'a{x="' + b"y" * 10_000_000 + b'"} 1',
        b"a{" + b",".join(b'l%d="1"' % n for n in range(100_000)) + b"} 1",
    ):
        (rejected,) = decode_exposition(body, **PLAIN).rejected
        assert rejected.code in {"label-invalid", "labels-too-many"}
        assert len(rejected.reason) < 200
