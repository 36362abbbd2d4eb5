"""``meterite events`` on a database file, with and without a service beside it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from meterite.cli.events import followed
from meterite.cli.main import cli
from meterite.model.columns import Batch
from meterite.model.errors import InvalidInputError, NotFoundError, SettingsError
from meterite.model.metric import MetricSpec
from meterite.storage.event_interface import Outcome, Result
from meterite.storage.interface import Append
from meterite.storage.store import SqliteStore

TOKENS = {"token-one": "one", "token-two": "two"}
MINUTE = 60_000_000
YEAR_2020 = 1_577_836_800_000_000


class File:
    """A database with a metric an org; ``cross`` is an event of one."""

    def __init__(self, path):
        self.path = path / "m.db"
        self.ticks = itertools.count(YEAR_2020, MINUTE)
        self.store = SqliteStore(self.path, clock=lambda: next(self.ticks))
        self.store.open()
        self.metrics = {
            org: self.store.catalog.create(
                org, MetricSpec(code="M1", name="n", max_reading=10.0, notify="every")
            )
            for org in ("one", "two", "three")
        }

    def cross(self, org, reading):
        catalog, metric = self.store.catalog, self.metrics[org]
        batch = Batch(
            np.array([metric.series_first]),
            np.zeros(1, np.uint32),
            np.array([next(self.ticks)]),
            np.array([reading], np.float64),
        )
        append = Append(catalog.org_id(org), catalog.changed(0)[0], batch)
        self.store.commit([append])
        assert append.error is None


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/m.db")
    monkeypatch.setenv("API_TOKENS", json.dumps(TOKENS))
    one = File(tmp_path)
    yield one
    one.store.close()


def run(*arguments):
    return CliRunner().invoke(cli, ["events", *arguments])


def readings(lines):
    return [json.loads(line)["data"]["readings"]["last"]["reading"] for line in lines.splitlines()]


FIRST = "00000000-0000-7000-8000-000000000000"


def test_tail_prints_all_orgs_in_order(file):
    """An event a line, those of the settings' orgs, as they happened."""
    for reading, org in enumerate(("one", "two", "three", "two", "one", "one"), 11):
        file.cross(org, reading)
    done = run("tail", "--after", FIRST, "--no-follow")
    assert done.exit_code == 0, done.output
    assert readings(done.stdout) == [11, 12, 14, 15, 16]
    assert readings(run("tail", "--after", FIRST, "--no-follow", "--org", "two").stdout) == [12, 14]
    last = json.loads(done.stdout.splitlines()[2])["id"]
    assert readings(run("tail", "--after", last, "--no-follow").stdout) == [15, 16]
    assert run("tail", "--no-follow").stdout == done.stdout


def test_tail_filters(file):
    """By type and metric."""
    file.cross("one", 11)
    asked = ("tail", "--after", FIRST, "--no-follow")
    assert readings(run(*asked, "--type", "meterite.reading.above_max", "--metric", "M1").stdout) == [11]
    assert run(*asked, "--type", "meterite.reading.below_min").stdout == ""
    assert run(*asked, "--metric", "M2").stdout == ""
    assert run(*asked, "--type", "above").exit_code == 2


def test_tail_goes_on(file):
    """What happens while it waits is printed, in pages however large; nothing is asked where nothing is new."""
    waits = iter([[], [], [("two", 21), ("one", 22)], [], [("three", 23)], [("one", 24)]])

    def wait():
        for org, reading in next(waits):
            file.cross(org, reading)

    file.cross("one", 11)
    found = followed(file.store.events, ["one", "two"], after=None, wait=wait)
    assert [next(found).data["readings"]["last"]["reading"] for _ in range(3)] == [21, 22, 24]
    with pytest.raises(RuntimeError):  # the list of waits is at its end
        next(found)


def test_what_can_t_be_asked(file):
    """An org without a token, a cursor that is none: one sentence."""
    assert isinstance(run("tail", "--org", "three").exception, SettingsError)
    assert isinstance(run("tail", "--after", "x").exception, InvalidInputError)


def test_no_file(file, tmp_path, monkeypatch):
    """Nothing is made, nothing goes to stdout."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    done = run("tail")
    assert isinstance(done.exception, SettingsError)
    assert done.stdout == ""
    assert not (tmp_path / "none.db").exists()


def test_dead_deliveries_are_tried_again(file):
    """All, or one handler's; others stay as they are."""
    outbox = file.store.outbox
    outbox.register(["ops", "log"])
    for reading in (11, 12, 13):
        file.cross("one", reading)
    for handler in ("ops", "log"):
        outbox.fan_out(handler, lambda row: np.ones(len(row), bool))
    for handler in ("ops", "log"):
        claimed = outbox.claim("me", handler, 10)
        outbox.finish("me", [Result(one, Outcome.DEAD, error="gone") for one in claimed[1:]])
        outbox.finish("me", [Result(claimed[0], Outcome.DONE)])
    assert run("retry").exit_code == 2
    assert isinstance(run("retry", "--dead", "--handler", "nobody").exception, NotFoundError)
    assert run("retry", "--dead", "--handler", "log").stdout == "2 deliveries will be tried again.\n"
    assert {one.handler: one.dead for one in outbox.counts()} == {"ops": 2, "log": 0}
    assert run("retry", "--dead").stdout == "2 deliveries will be tried again.\n"
    assert {one.handler: one.dead for one in outbox.counts()} == {"ops": 0, "log": 0}


COMMAND = (
    sys.executable,
    "-W",
    "error",
    "-c",
    "from meterite.cli.main import main; main()",
    "events",
    "tail",
)


def test_a_reader_that_leaves_ends_it(file):
    """As ``| head -1`` does: no traceback."""
    for reading in range(11, 400):
        file.cross("one", reading)
    command = [*COMMAND, "--after", FIRST, "--no-follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert readings(process.stdout.readline().decode()) == [11]
        process.stdout.close()
        error = process.stderr.read()
        process.wait(20)
    assert error == b""


def heed_ctrl_c():
    """A test run in the background ignores it, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_it_in_order(file):
    """What was printed before is whole."""
    file.cross("one", 11)
    with subprocess.Popen(
        [*COMMAND, "--after", FIRST],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509 -- no other thread holds a lock that it needs
    ) as process:
        try:
            assert readings(process.stdout.readline().decode()) == [11]
            file.cross("two", 12)
            assert readings(process.stdout.readline().decode()) == [12]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()
