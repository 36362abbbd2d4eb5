"""Deliveries by real servers: workers that die, receivers that fail, handlers that do what none should."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import statistics
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import event as sql_event

from e2e.receiver import Receiver, environment
from e2e.test_event_streams import Stream
from e2e.test_workers import one_each
from meterite.model.metric import MetricSpec, Notify
from meterite.service import Service
from meterite.settings import Settings

BACK_S = 10
STOP_S = 10
LIMITED = {"min_reading": 0, "max_reading": 10, "notify": "every"}
QUIET_S = 5


def make(client, code="M1"):
    assert client.post("/metric/", json={"code": code, "name": code, **LIMITED}).status_code == 200


def cross(client, count=1, code="M1"):
    """So many events, each in a commit of its own; answers how long each push took."""
    times = []
    for _ in range(count):
        begun = time.monotonic()
        assert client.post(f"/metric/{code}", json={"reading": 11}).status_code == 200
        times.append(time.monotonic() - begun)
    return times


def all_ids(client):
    return {event["id"] for event in client.get("/events", params={"limit": 1000}).json()["events"]}


def taken(receiver, name="ops"):
    return {call.id for call in receiver.taken(name)}


def sender(server, receiver, call):
    """The worker that makes this call."""
    ours, theirs = f":{call.peer:04X}", f":{receiver.port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(ours) and fields[2].endswith(theirs):
            return server._owner(f"socket:[{fields[9]}]")
    return None


def test_a_dead_workers_deliveries_come_back(start):
    """Of three workers one is killed while it calls and has claimed more: within 10 s others have told all of it."""
    let_go = threading.Event()
    dead = set()

    def answer(call):
        let_go.wait(30)
        return None if call.peer in dead else 200

    with Receiver(answer) as receiver:
        server = start(3, env=environment(receiver.setting("ops", concurrency=2)))
        clients = one_each(server)
        make(clients[0])
        cross(clients[0], 30)
        assert receiver.wait(lambda: len(receiver.calls) >= 2)
        victim = sender(server, receiver, receiver.calls[0])
        held = [call for call in list(receiver.calls) if sender(server, receiver, call) == victim]
        assert held
        dead.update(call.peer for call in held)
        os.kill(victim, signal.SIGKILL)
        killed_s = time.monotonic()
        let_go.set()
        expected = all_ids(server.client())
        assert len(expected) == 30
        assert receiver.wait(lambda: taken(receiver) == expected, 2 * BACK_S)
        last_s = max(call.at_s for call in receiver.taken("ops")) - killed_s
        print(f"the last one came {last_s:.1f} s after the kill")
        assert last_s < BACK_S
        assert {call.id for call in held} <= {c.id for c in receiver.taken("ops") if c.at_s > killed_s}
        receiver.check()


def test_one_in_five_fails(start):
    """Nothing is put off for it but what failed, and that for a few seconds: no breaker opens, all of it arrives."""
    numbers = itertools.count(1)
    with Receiver(lambda _call: 500 if next(numbers) % 5 == 0 else 200) as receiver:
        server = start(env=environment(receiver.setting("ops")))
        client = server.client()
        make(client)
        cross(client, 300)
        expected = all_ids(client)
        assert receiver.wait(lambda: taken(receiver) == expected, 60)
        calls = Counter(call.id for call in receiver.calls)
        assert len(receiver.taken("ops")) == len(expected) == 300
        assert sum(calls.values()) > 350
        assert "handler.paused" not in server.text()
        receiver.check()


PATIENT = """
    from meterite.events.hooks import hookimpl

    @hookimpl
    def meterite_handle_event(event):
        pass
    """
PLUGINS = {
    "blocks": """
        import time
        from meterite.events.hooks import hookimpl

        @hookimpl
        def meterite_handle_event(event):
            time.sleep(3600)
        """,
    "blocks_its_loop": """
        import time
        from meterite.events.hooks import hookimpl

        @hookimpl
        async def meterite_handle_event(event):
            time.sleep(3600)
        """,
    "swallows": """
        import asyncio
        from meterite.events.hooks import hookimpl

        @hookimpl
        async def meterite_handle_event(event):
            while True:
                try:
                    await asyncio.sleep(3600)
                except BaseException:
                    pass
        """,
    "raises": """
        import itertools
        from meterite.events.hooks import hookimpl

        class Worst(BaseException):
            def __str__(self):
                raise self

        raised = itertools.cycle([SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(), Worst()])

        @hookimpl
        def meterite_handle_event(event):
            raise next(raised)
        """,
    "raises_in_its_loop": """
        import asyncio, itertools
        from meterite.events.hooks import hookimpl

        raised = itertools.cycle([SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])

        async def later():
            raise SystemExit(4)

        @hookimpl
        async def meterite_handle_event(event):
            asyncio.get_running_loop().create_task(later())
            raise next(raised)
        """,
    "leaks": """
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        from meterite.events.hooks import hookimpl

        kept = []

        @hookimpl
        def meterite_handle_event(event):
            threading.Thread(target=time.sleep, args=(3600,)).start()
            pool = ThreadPoolExecutor(1)
            pool.submit(time.sleep, 3600)
            kept.append((pool, open(__file__), bytearray(100_000)))
        """,
    "never_ends": """
        import time
        from meterite.events.hooks import hookimpl

        @hookimpl
        def meterite_startup():
            time.sleep(3600)

        @hookimpl
        def meterite_shutdown():
            time.sleep(3600)
        """,
}


def plugins_dir(path, plugins):
    path.mkdir(mode=0o755)
    for name, source in plugins.items():
        file = path / f"{name}.py"
        file.write_text(textwrap.dedent(source))
        file.chmod(0o644)
    return path


NAGGED = """
    import os
    import time

    from meterite.events.hooks import Handler, HandlerOptions, Kind, hookimpl

    class Nagged(Handler):
        remind_s = 1.0

        async def handle(self, event):
            pass

        async def remind(self, events, *, over=False):
            with open(os.environ["NAGGED"], "a") as file:
                file.write(f"{os.getpid()} {time.monotonic()}\\n")

    @hookimpl
    def meterite_handler_kinds():
        return {"nagged": Kind(HandlerOptions, lambda options, tools: Nagged())}
    """


def test_one_worker_reminds(start, tmp_path):
    """Of three, and no oftener than the handler says; where it is killed, another goes on."""
    told = tmp_path / "told"
    told.touch()
    env = {
        "HANDLERS": json.dumps([{"name": "n", "kind": "nagged"}]),
        "PLUGINS_DIR": str(plugins_dir(tmp_path / "plugins", {"nagged": NAGGED})),
        "NAGGED": str(told),
    }
    server = start(3, env=env)
    make(server.client())
    cross(server.client())

    def calls(but=None):
        lines = [line.split() for line in told.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [(int(pid), float(at_s)) for pid, at_s in lines if int(pid) != but]

    assert eventually(lambda: len(calls()) >= 4)
    pids, times = zip(*calls(), strict=True)
    assert len(set(pids)) == 1
    assert min(later - one for one, later in itertools.pairwise(times)) > 0.9
    os.kill(pids[0], signal.SIGKILL)
    assert eventually(lambda: len(calls(but=pids[0])) >= 2)


def eventually(holds):
    until = time.monotonic() + 20
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()


@pytest.mark.parametrize("workers", [1, 3])
def test_bad_handlers_harm_nobody(start, tmp_path, workers):
    """Plug-ins that block, raise what ends programs, and leak: who records and who listens notices nothing, another
    handler is told everything, and a stop takes no longer than it may.
    """
    with Receiver() as receiver:
        env = environment(receiver.setting("ops"))
        server = start(workers, env=env | {"PLUGINS_DIR": str(plugins_dir(tmp_path / "plugins", PLUGINS))})
        client = server.client()
        make(client)
        cross(client)
        assert receiver.wait(lambda: len(taken(receiver)) == 1)
        streams = [Stream(server.client(), until=100 if n < 10 else None) for n in range(20)]
        times = cross(client, 100)
        assert statistics.median(times) < 0.1
        expected = all_ids(client)
        assert receiver.wait(lambda: taken(receiver) == expected, 20)
        assert len(receiver.calls) == len(expected) == 101
        for stream in streams[:10]:
            stream.wait()
        statuses = Counter(state for id_ in sorted(expected) for state in states(client, id_))
        assert statuses["ops", "done"] > 90  # the last results may be on their way
        assert statuses["plugin:leaks", "done"] > 90
        assert not any(statuses[f"plugin:{name}", "done"] for name in PLUGINS if name != "leaks")
        begun = time.monotonic()
        assert server.stop(2 * STOP_S) == 0
        took_s = time.monotonic() - begun
        print(f"the stop took {took_s:.1f} s")
        assert took_s < STOP_S
        for stream in streams:
            stream.wait()
        receiver.check()


def states(client, id_):
    return [(each["handler"], each["state"]) for each in client.get(f"/events/{id_}").json()["deliveries"]]


class Statements:
    """What each thread of a service in this process asks the database."""

    def __init__(self, service):
        self.seen = Counter()
        sql_event.listen(service.store.database._engine, "connect", self._connected)

    def _connected(self, raw, _record):
        raw.set_trace_callback(self._count)

    def _count(self, statement):
        self.seen[threading.current_thread().name, statement] += 1

    def of(self, thread):
        return {text: count for (name, text), count in self.seen.items() if name == thread}


def test_waiting_costs_nothing(tmp_path):
    """With handlers and nothing to deliver there is one look a second, each some statements that read; a commit of
    the same process is noticed at once all the same.
    """
    asyncio.run(_waiting(tmp_path))


async def _waiting(tmp_path):
    with Receiver() as receiver:
        handlers = [receiver.setting("ops"), receiver.setting("ordered", ordered=True)]
        service = Service(
            Settings(
                _env_file=None,
                api_tokens={"a": "org_01"},
                database_url=f"sqlite:///{tmp_path / 'm.db'}",
                handlers=json.dumps(handlers),
                plugins_dir=plugins_dir(tmp_path / "plugins", {"patient": PATIENT}),
            )
        )
        statements = Statements(service)
        await service.open()
        try:
            await _tell(service, receiver)
            await _rest(statements, handlers=3)
        finally:
            await service.close()
        receiver.check()


async def _tell(service, receiver):
    await service.catalog.create(
        "org_01", MetricSpec(code="M1", name="M1", max_reading=10, notify=Notify.EVERY)
    )
    took_s = []
    for n in range(1, 10):
        begun = time.monotonic()
        await service.recorder.record_one("org_01", "M1", 11, None)
        assert await asyncio.to_thread(receiver.wait, lambda n=n: len(receiver.calls) == 2 * n)
        took_s.append(time.monotonic() - begun)
    print(f"told after {statistics.median(took_s):.3f} s")
    assert statistics.median(took_s) < 0.3  # a look that isn't woken comes after half a second, on average


async def _rest(statements, handlers):
    """A look asks what is newest, by four statements at most, and of each handler what is due."""
    await asyncio.sleep(1)  # the last results are stored
    statements.seen.clear()
    before_s = used_s("meterite-dispatch")
    await asyncio.sleep(QUIET_S)
    used = used_s("meterite-dispatch") - before_s
    asked = statements.of("meterite-dispatch")
    print(f"{asked['BEGIN']} transactions and {used:.3f} s of CPU in {QUIET_S} s")
    assert QUIET_S - 1 <= asked["BEGIN"] / (1 + handlers) <= QUIET_S + 1
    looks = asked["BEGIN"] // (1 + handlers)
    assert {statement.split()[0] for statement in asked} == {"BEGIN", "SELECT", "COMMIT"}
    assert sum(asked.values()) <= 3 * asked["BEGIN"] + 3 * looks
    assert used < QUIET_S / 100
    assert {name for name, _ in statements.seen} <= {"meterite-dispatch", "meterite-upkeep"}


def used_s(name):
    """CPU time of a thread of this process."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
    return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]) / 1e9
