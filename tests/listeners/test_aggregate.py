"""What an interval's samples become."""

from __future__ import annotations

import pytest

from meterite.listeners.aggregate import Aggregate
from meterite.model.columns import SeriesKey
from meterite.wire.statsd import decode_statsd

AT_US = 1_769_860_800_000_000


def after(aggregate, *lines):
    """Code and labels to value, at the end of an interval with these lines."""
    for sample in decode_statsd("\n".join(lines).encode()).samples:
        assert aggregate.add(sample)
    decoded = aggregate.take(AT_US)
    assert decoded.rejected == []
    assert set(decoded.at_us.tolist()) <= {AT_US}
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    found = {(key.code, key.labels): value for key, value in zip(keys, decoded.values.tolist(), strict=True)}
    assert len(found) == len(decoded)
    return found


def test_counters():
    """Added up, each by its rate, and from nothing in each interval; a silent one has no reading."""
    aggregate = Aggregate()
    lines = ("a:1|c", "a:2|c", "a:1|c|@0.1", "a:5|c|#x:y", "b:-1|c")
    assert after(aggregate, *lines) == {("a", ()): 13, ("a", (("x", "y"),)): 5, ("b", ()): -1}
    assert after(aggregate, "a:1|c") == {("a", ()): 1}
    assert after(aggregate) == {}


def test_gauges():
    """The last value, from which steps go, within an interval and across; an unknown one begins at 0."""
    aggregate = Aggregate()
    assert after(aggregate, "a:10|g", "a:7|g", "a:+4|g", "b:-3|g") == {("a", ()): 11, ("b", ()): -3}
    assert after(aggregate, "a:-1|g") == {("a", ()): 10}
    assert after(aggregate) == {}
    assert after(aggregate, "a:-1|g", "a:0|g", "a:-5|g") == {("a", ()): -5}


def test_sets():
    """How many different texts there were."""
    aggregate = Aggregate()
    assert after(aggregate, "u:a|s", "u:b|s", "u:a|s", "u:1|s") == {("u", ()): 3}
    assert after(aggregate, "u:a|s") == {("u", ()): 1}


def test_timers():
    """Their figures, the count with the rate, and tags on all of them."""
    aggregate = Aggregate()
    values = [*range(1, 11)]
    found = after(aggregate, *(f"t:{value}|ms|#x:y" for value in values))
    labels = (("x", "y"),)
    assert found == {
        ("t.count", labels): 10,
        ("t.sum", labels): 55,
        ("t.mean", labels): 5.5,
        ("t.lower", labels): 1,
        ("t.upper", labels): 10,
        ("t.median", labels): 5.5,
        ("t.upper_90", labels): 9,
    }
    once = after(aggregate, "t:320|ms|@0.1")
    assert once[("t.count", ())] == 10
    assert {value for (code, _), value in once.items() if code != "t.count"} == {320}


def test_what_is_beyond_a_float64():
    """Is rejected, and the rest stays."""
    aggregate = Aggregate()
    for sample in decode_statsd(b"a:1e308|c\na:1e308|c\nb:1|c\nt:1e308|ms\nt:1e308|ms").samples:
        aggregate.add(sample)
    decoded = aggregate.take(AT_US)
    assert {each.code for each in decoded.rejected} == {"reading-invalid"}
    assert {"b", "t.count", "t.upper"} <= {key.code for key in decoded.keys}


def test_a_name_that_is_too_long_with_what_is_added():
    """A timer's figures have longer codes than the timer."""
    aggregate = Aggregate()
    (sample,) = decode_statsd(b"t" * 197 + b":1|ms").samples
    aggregate.add(sample)
    assert {each.code for each in aggregate.take(AT_US).rejected} == {"code-invalid"}


@pytest.mark.parametrize("line", ["n{}:1|c", "n{}:1|g", "n:{}|s", "n:{}|ms", "n{}:1|ms"])
def test_an_interval_is_bounded(line):
    """By bytes; what is beyond is told to who adds it, and the next interval begins empty."""
    aggregate = Aggregate(held_bytes_max=20_000)
    samples = [sample for n in range(2000) for sample in decode_statsd(line.format(n).encode()).samples]
    taken = [aggregate.add(sample) for sample in samples]
    assert 20 < sum(taken) < 600
    assert taken == sorted(taken, reverse=True)
    aggregate.take(AT_US)
    assert aggregate.add(samples[0])


def test_gauges_that_were_silent_longest_are_forgotten():
    """Beyond the bound on what is remembered: their next step begins at 0."""
    aggregate = Aggregate(gauges_bytes_max=5000)
    after(aggregate, "old:5|g", "kept:5|g")
    for n in range(50):
        after(aggregate, f"g{n}:1|g", "kept:+0|g")
    assert after(aggregate, "old:+1|g", "kept:+1|g") == {("old", ()): 1, ("kept", ()): 6}
    assert len(aggregate._gauges) <= 5000 // 400


def test_keys_of_the_two_kinds_dont_mix():
    """A counter and a gauge of one name are one metric; both readings are there, the gauge's as the later."""
    aggregate = Aggregate()
    for sample in decode_statsd(b"a:1|g\na:2|c").samples:
        aggregate.add(sample)
    decoded = aggregate.take(AT_US)
    assert decoded.keys == [SeriesKey("a")]
    assert decoded.values.tolist() == [2, 1]
