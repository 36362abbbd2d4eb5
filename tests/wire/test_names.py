"""Names kept from request to request: one object a name, within a bound of memory, by any number of threads."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from meterite.model.columns import SeriesKey
from meterite.wire.names import NAMES_BYTES_MAX, Names


def named(n, text="v"):
    """A name that shares no object with another."""
    return SeriesKey(f"code_{n}", (("host", f"{text}{n}"), ("rack", f"r{n}")))


def test_equal_names_are_one_object():
    """However they are written, in whatever context; and known again by what they were written as."""
    known = Names().known()
    one = known.keep("text", b"a", named(1))
    assert known.keep("text", b"b", named(1)) is known.keep("other", b"a", named(1)) is one
    assert known.one(named(1)) is one
    assert known.within("text") == {b"a": one, b"b": one}
    assert known.within("other") == {b"a": one}
    assert known.keep("text", b"c", named(2)) == named(2)


def test_what_is_kept_lasts():
    """From request to request, while there is room."""
    names = Names()
    one = names.known().keep("text", b"a", named(1))
    assert names.known().within("text")[b"a"] is one


def test_too_many_are_dropped():
    """All of them; a request under way keeps what it knows."""
    names = Names(bytes_max=2000)
    known = names.known()
    keys = [known.keep("text", b"%d" % n, named(n)) for n in range(50)]
    assert [known.one(named(n)) for n in range(50)] == keys
    assert all(known.one(named(n)) is key for n, key in enumerate(keys))
    assert names.known() is not known
    assert not names.known().within("text")
    known.keep("text", b"later", named(99))
    assert not names.known().within("text")


def test_there_is_room_for_100_000_series():
    """With three labels, as an agent writes them: were there less, each request would drop what the next one needs."""
    names = Names()
    for n in range(1000):
        labels = (("instance", f"host-{n:06}:9100"), ("job", f"node {n:03}"), ("mode", f"user {n:03}"))
        raw = f'node_cpu_seconds_total{{instance="host-{n:06}:9100",job="node {n:03}",mode="user {n:03}"'
        names.known().keep("text", raw, SeriesKey(f"node_cpu_seconds_total_{n}", labels))
    assert 100 * names.known().size < NAMES_BYTES_MAX


MADE = {
    "names": lambda known, n: known.keep("text", b"raw %d" % n, named(n)),
    "long names": lambda known, n: known.keep("text", b"raw %d" % n, named(n, "ä€😀" * 300)),
    "ways to write one": lambda known, n: known.keep("text", (b"raw %d" % n, ("le", str(n))), named(0)),
    "names nobody writes": lambda known, n: known.one(named(n)),
    "contexts": lambda known, n: known.keep(("text", f"context {n}"), b"raw", named(0)),
    "empty contexts": lambda known, n: known.within(("text", f"context {n}")),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_the_bound_holds(make):
    """What is kept never takes more memory than was allowed, and a good part of that is used."""
    bound = 300_000
    names = Names(bound)
    tracemalloc.start()
    try:
        most = before = tracemalloc.get_traced_memory()[0]
        for n in range(3_000):
            make(names.known(), n)
            most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert 0.2 * bound < most - before < 1.02 * bound


def test_several_threads():
    """They agree on the objects; what they keep costs what it costs one alone."""
    names = Names()
    known = names.known()

    def keep(turn):
        return [known.keep(("text", n % 7), b"%d %d" % (turn % 2, n), named(n)) for n in range(300)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(keep, range(32)))
    assert len({tuple(map(id, each)) for each in made}) == 1
    alone = Names().known()
    for turn in range(2):
        for n in range(300):
            alone.keep(("text", n % 7), b"%d %d" % (turn, n), named(n))
    assert known.size == alone.size
