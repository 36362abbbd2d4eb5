"""Who waits for whom before the service's threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from meterite import lanes as lanes_module
from meterite.lanes import LARGE_BODY_BYTES, Lane, Lanes
from meterite.model.errors import UnavailableError

PATIENCE_S = 20


@pytest.fixture
def lanes():
    opened = Lanes()
    yield opened
    opened.close()


@pytest.fixture
def lane():
    opened = Lane("test", 1, PATIENCE_S)
    yield opened
    opened.close()


def scenario(work):
    async def in_time():
        async with asyncio.timeout(PATIENCE_S):
            return await work()

    return asyncio.run(in_time())


def steps_of(name, count, done):
    for n in range(count):
        done.append(f"{name}{n}")
        yield 0.0
    return name


def waiting_for(name, holds, done):
    """Two steps, with nothing to do between them until something holds."""
    done.append(f"{name}0")
    while not holds():
        yield 0.001
    done.append(f"{name}1")
    return name


def test_others_go_between_the_steps(lane):
    """Of other orgs, with steps or without: each waits for one step of each that came before it."""
    done = []

    async def work():
        ended = await asyncio.gather(
            lane.run_steps("one", steps_of("a", 4, done)),
            lane.run_steps("two", steps_of("b", 2, done)),
            lane.run(done.append, "write"),
        )
        return ended[:2]

    assert scenario(work) == ["a", "b"]
    assert done == ["a0", "b0", "write", "a1", "b1", "a2", "a3"]


def test_of_an_org_one_after_the_other(lane):
    """In the order they came, also where one has nothing to do for a while, in which others have the thread."""
    done = []

    async def work():
        await asyncio.gather(
            lane.run_steps("one", waiting_for("a", lambda: "d1" in done, done)),
            lane.run_steps("one", steps_of("b", 1, done)),
            lane.run_steps("one", steps_of("c", 1, done)),
            lane.run_steps("two", steps_of("d", 2, done)),
        )

    scenario(work)
    assert done == ["a0", "d0", "d1", "a1", "b0", "c0"]
    assert lane._lines == {}


def test_who_stands_in_an_org_s_line_too_long_is_refused(lane, monkeypatch):
    """Without having begun; and so is who finds it full. Other orgs notice nothing, and the next has its turn."""
    monkeypatch.setattr(lanes_module, "WAITING_MAX", 2)
    done, over = [], threading.Event()

    async def work():
        first = asyncio.create_task(lane.run_steps("one", waiting_for("a", over.is_set, done)))
        await asyncio.sleep(0)
        with monkeypatch.context() as impatient:
            impatient.setattr(lane, "_wait_s", 0.02)
            second = asyncio.create_task(lane.run_steps("one", steps_of("b", 1, done)))
            await asyncio.sleep(0)
            with pytest.raises(UnavailableError, match="requests are waiting"):
                await lane.run_steps("one", steps_of("c", 1, done))
            with pytest.raises(UnavailableError, match="before this one"):
                await second
        over.set()
        assert await lane.run_steps("two", steps_of("d", 1, done)) == "d"
        assert await first == "a"
        assert await lane.run_steps("one", steps_of("e", 1, done)) == "e"

    scenario(work)
    assert [one for one in done if one[0] in "bc"] == []


def test_what_has_begun_is_not_refused(lane, monkeypatch):
    """However full the lane is by then, and however late: half of it is made already."""

    def steps():
        monkeypatch.setattr(lane, "_wait_s", -1.0)
        yield 0.0
        monkeypatch.setattr(lanes_module, "WAITING_MAX", 0)
        yield 0.0
        return "a"

    async def work():
        assert await lane.run_steps("one", steps()) == "a"
        with pytest.raises(UnavailableError, match="requests are waiting"):
            await lane.run(str)

    scenario(work)


def test_what_is_cancelled_lets_go_of_what_it_holds(lane):
    """Not before the step that is under way is done, and before the org's next has its turn."""
    done = []
    begun, go_on = threading.Event(), threading.Event()

    def steps():
        try:
            yield 0.0
            begun.set()
            assert go_on.wait(PATIENCE_S)
            done.append("step")
            yield 0.0
        finally:
            done.append("let go")

    async def work():
        first = asyncio.create_task(lane.run_steps("one", steps()))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(lane.run_steps("one", steps_of("b", 1, done)))
        await asyncio.sleep(0)
        go_on.set()
        await second

    scenario(work)
    assert done == ["step", "let go", "b0"]


def test_a_step_that_fails_ends_it(lane):
    def steps():
        yield 0.0
        raise ZeroDivisionError

    async def work():
        with pytest.raises(ZeroDivisionError):
            await lane.run_steps("one", steps())
        return await lane.run_steps("one", steps_of("b", 1, []))

    assert scenario(work) == "b"


def test_steps_end_with_the_lanes():
    """Those that are under way are cancelled, and let go of what they hold; no thread is left."""
    lanes = Lanes()
    begun, let_go = threading.Event(), []

    def steps():
        try:
            while True:
                begun.set()
                yield 0.01
        finally:
            let_go.append(True)

    async def work():
        stepping = asyncio.create_task(lanes.write_steps("one", steps()))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        await asyncio.to_thread(lanes.close)
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            await stepping

    scenario(work)
    assert let_go
    assert [one.name for one in threading.enumerate() if one.name.startswith("meterite-write")] == []


def test_bodies_are_decoded_by_turns(lanes):
    """Of the orgs, whoever has sent more; the largest keep only each other waiting."""
    done = []
    begun, go_on = threading.Event(), threading.Event()

    def held(name):
        begun.set()
        assert go_on.wait(PATIENCE_S)
        done.append(name)

    async def work():
        small, large = LARGE_BODY_BYTES, LARGE_BODY_BYTES + 1
        waiting = [asyncio.create_task(lanes.decode("one", large, lambda: held("large")))]
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        begun.clear()
        waiting.append(asyncio.create_task(lanes.decode("one", small, lambda: held("one"))))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        waiting += [
            asyncio.create_task(lanes.decode(org, small, lambda org=org: done.append(org)))
            for org in ("one", "one", "two")
        ]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*waiting)

    scenario(work)
    assert [one for one in done if one != "large"] == ["one", "two", "one", "one"]
