"""What collectd's ``write_http`` sends."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import SeriesKey
from meterite.model.errors import MalformedError, MeteriteError, TooLargeError
from meterite.wire.collectd import LONE, decode_collectd

AT = 1_769_817_600_000_000
DISK = {
    "values": [3, 4.5],
    "dstypes": ["derive", "derive"],
    "dsnames": ["read", "write"],
    "time": 1769817600.250,
    "interval": 10.000,
    "host": "h1",
    "plugin": "disk",
    "plugin_instance": "sda",
    "type": "disk_octets",
    "type_instance": "",
}
NAMED = (("host", "h1"), ("plugin", "disk"), ("plugin_instance", "sda"))


def decode(document, readings_max=1000):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_collectd(body, readings_max=readings_max)


def plain(decoded):
    """(row, code, labels, time, value) of each reading, (row, code) of each rejection, and how many were skipped."""
    keys = [decoded.keys[i] for i in decoded.key_index.tolist()]
    columns = (decoded.row.tolist(), keys, decoded.at_us.tolist(), decoded.values.tolist())
    taken = [(row, k.code, k.labels, at, value) for row, k, at, value in zip(*columns, strict=True)]
    return taken, [(r.index, r.code) for r in decoded.rejected], decoded.skipped


def identifier(key):
    """What docs/doors/collectd.md says: the way back from code and labels."""
    labels = dict(key.labels)
    dsname = labels.get("dsname", LONE)
    code = key.code if dsname == LONE else key.code.removesuffix(f"_{dsname}")
    plugin = labels["plugin"]
    instances = labels.get("plugin_instance", ""), labels.get("type_instance", "")
    return labels["host"], plugin, instances[0], code.removeprefix(f"{plugin}_"), instances[1], dsname


def test_values_are_readings():
    """Each value of a list by its name; the name ``value`` says nothing. Times are seconds with a fraction."""
    lone = {**DISK, "plugin": "load", "plugin_instance": "", "type": "gauge", "type_instance": "a b"}
    lone |= {"values": [1], "dstypes": ["gauge"], "dsnames": ["value"], "time": 1769817600}
    labels = (("host", "h1"), ("plugin", "load"), ("type_instance", "a b"))
    assert plain(decode([DISK, lone])) == (
        [
            (0, "disk_disk_octets_read", (("dsname", "read"), *NAMED), AT + 250_000, 3.0),
            (0, "disk_disk_octets_write", (("dsname", "write"), *NAMED), AT + 250_000, 4.5),
            (1, "load_gauge", labels, AT, 1.0),
        ],
        [],
        0,
    )
    assert plain(decode(lone)) == ([(0, "load_gauge", labels, AT, 1.0)], [], 0)
    assert plain(decode([])) == ([], [], 0)


def test_unknown_values_are_skipped():
    """``null`` costs nothing of what is beside it."""
    taken, rejected, skipped = plain(
        decode([{**DISK, "values": [None, 4]}, {**DISK, "values": [None, None]}])
    )
    assert ([row[1] for row in taken], rejected, skipped) == (["disk_disk_octets_write"], [], 3)


def test_a_notification_is_no_reading():
    """As ``Notifications true`` sends them."""
    alert = [{"labels": {"alertname": "collectd_cpu"}, "annotations": {}, "startsAt": "2026-01-31T00:00:00Z"}]
    assert plain(decode(alert)) == ([], [], 1)


@pytest.mark.parametrize(
    ("change", "code", "count"),
    [
        ({"time": "1769817600"}, "time-invalid", 2),
        ({"time": None}, "time-invalid", 2),
        ({"time": 1e308}, "time-invalid", 2),
        ({"time": 1769817600250}, "time-unit", 2),
        ({"host": ""}, "shape-invalid", 2),
        ({"plugin": 7}, "shape-invalid", 2),
        ({"type_instance": None}, "shape-invalid", 2),
        ({"dsnames": ["read"]}, "lengths-differ", 2),
        ({"dsnames": "read"}, "shape-invalid", 2),
        ({"dsnames": ["", {}]}, "shape-invalid", 2),
        ({"values": 3}, "shape-invalid", 1),
        ({"values": [True, {}]}, "reading-invalid", 2),
        ({"host": "a\nb"}, "label-invalid", 2),
        ({"type": "t" * 300}, "code-invalid", 2),
    ],
)
def test_what_can_not_be_taken(change, code, count):
    """Is rejected for each value that is lost, by the list's number, and the next list is taken."""
    taken, rejected, skipped = plain(decode([{**DISK, **change}, DISK]))
    assert [row[0] for row in taken] == [1, 1]
    assert (rejected, skipped) == ([(0, code)] * count, 0)


def test_numbers_that_json_lacks():
    """``NaN`` and what no float64 is near are rejected alone; collectd itself writes ``null``."""
    body = json.dumps(DISK).replace("[3, 4.5]", "[NaN, 4.5]").encode()
    assert [row[1] for row in plain(decode(body))[0]] == ["disk_disk_octets_write"]
    assert plain(decode(body))[1] == [(0, "reading-invalid")]
    late = json.dumps(DISK).replace("1769817600.25", "1" * 500).encode()
    assert plain(decode(late))[1] == [(0, "time-invalid")] * 2


def test_bodies_that_are_something_else():
    """The plug-in's other format is named; what isn't JSON is refused with its place."""
    with pytest.raises(MalformedError, match='Format "JSON"'):
        decode(b"PUTVAL h/load/load interval=10.000 1769817600.000:1\r\n")
    with pytest.raises(MalformedError, match="line 2, column 1"):
        decode(b"[\n")
    assert plain(decode(b'"x"'))[1] == [(0, "shape-invalid")]


def test_bound():
    """Good and bad count."""
    with pytest.raises(TooLargeError):
        decode([DISK, {**DISK, "time": 0.5, "host": ""}], readings_max=3)
    with pytest.raises(TooLargeError):
        decode([{**DISK, "host": "", "values": [1] * 1001}])


NAMES = st.text("ab_-", min_size=1, max_size=3)
IDENTIFIERS = st.tuples(
    NAMES, NAMES, st.text("ab_", max_size=2), NAMES, st.text("ab_", max_size=2), NAMES | st.just(LONE)
)


@given(st.lists(IDENTIFIERS, max_size=30))
def test_names_are_reversible(identifiers):
    """Each identifier comes back from code and labels; so no two are one series."""
    fields = ("host", "plugin", "plugin_instance", "type", "type_instance")
    lists = [
        {**DISK, **dict(zip(fields, name, strict=False)), "dsnames": [name[-1]], "values": [1]}
        for name in identifiers
    ]
    decoded = decode(lists)
    assert [identifier(key) for key in decoded.keys] == list(dict.fromkeys(identifiers))
    assert all(isinstance(key, SeriesKey) for key in decoded.keys)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*DISK, "annotations"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(list(DISK)), JSON).map(lambda d: DISK | d) | JSON, max_size=4)
)
def test_any_json(document):
    """Gives columns or our error."""
    try:
        decoded = decode(document)
    except MeteriteError:
        return
    assert len(set(decoded.keys)) == len(decoded.keys)


@given(st.binary(max_size=40))
def test_any_bytes(body):
    """Give columns or our error."""
    with contextlib.suppress(MeteriteError):
        decode(body)
