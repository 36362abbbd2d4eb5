"""The libraries of InfluxDB 1, 2 and 3, and QuestDB's: each retries by its own rule (``docs/doors/influxdb.md``)."""

from __future__ import annotations

import contextlib
import time

import influxdb
import influxdb.exceptions
import influxdb_client
import influxdb_client_3
import pytest
import questdb
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client_3.exceptions import InfluxDBPartialWriteError

from clients.between import BUSY, LATE, LOST, PASS
from clients.found import expect, readings
from e2e.server import ONE

T_US = 1_769_817_600_000_000
COUNT = 50
ROOF = (("place", "the roof, left"),)
TRIES = 8
QUICK = {"retry_interval": 100, "max_retries": TRIES, "flush_interval": 50}

# What the libraries do with their own dependencies is theirs.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def points(measurement):
    """As the two libraries that take dictionaries want them: two numbers, a text and a switch each."""
    return [
        {
            "measurement": measurement,
            "tags": dict(ROOF),
            "fields": {"temperature": n / 4, "humidity": n, "note": 'a "text", and more', "open": n % 2 == 0},
            "time": (T_US + n * 1000) * 1000,
        }
        for n in range(COUNT)
    ]


def wanted(field):
    value = {"temperature": lambda n: n / 4, "humidity": float, "open": lambda n: float(n % 2 == 0)}[field]
    return {(ROOF, T_US + n * 1000): value(n) for n in range(COUNT)}


@contextlib.contextmanager
def version_1(proxy, token=ONE):
    """It retries connections that broke, and nothing else."""
    client = influxdb.InfluxDBClient("127.0.0.1", proxy.port, "any", token, "any")
    with contextlib.closing(client):
        yield client


def send_1(proxy, measurement, token=ONE):
    """A program's own loop around it: a 503 is the program's business."""
    with version_1(proxy, token) as client:
        for _ in range(TRIES):
            try:
                return client.write_points(points(measurement), time_precision="n")
            except influxdb.exceptions.InfluxDBServerError:
                time.sleep(0.01)
    raise AssertionError("it was busy too often")


def version_2(proxy, token=ONE):
    return influxdb_client.InfluxDBClient(proxy.url, token=token, org="any")


def send_2(proxy, measurement, token=ONE):
    """In batches, as it does by default, on a thread of its own; what it gave up is raised."""
    failed = []
    with (
        version_2(proxy, token) as client,
        client.write_api(
            WriteOptions(batch_size=20, **QUICK), error_callback=lambda _, __, error: failed.append(error)
        ) as write,
    ):
        write.write("any", record=points(measurement), write_precision="ns")
    if failed:
        raise failed[0]


def version_3(proxy, token=ONE, **options):
    return influxdb_client_3.InfluxDBClient3(host=proxy.url, token=token, database="any", **options)


def send_3(proxy, measurement, token=ONE, *, use_v2_api=False):
    """As version 2."""
    failed = []
    options = influxdb_client_3.write_client_options(
        write_options=influxdb_client_3.WriteOptions(batch_size=20, use_v2_api=use_v2_api, **QUICK),
        error_callback=lambda _, __, error: failed.append(error),
    )
    with version_3(proxy, token, write_client_options=options) as client:
        client.write(points(measurement), write_precision="ns")
    if failed:
        raise failed[0]


def quest(proxy, token=ONE, retry_ms=60_000):
    return questdb.Sender.from_conf(
        f"http::addr=127.0.0.1:{proxy.port};token={token};auto_flush=off;"
        f"retry_timeout={retry_ms};request_timeout=60000;"
    )


def send_quest(proxy, measurement, token=ONE):
    """It retries a 503 by itself; a connection that broke is the program's business, which kept the buffer."""
    with quest(proxy, token) as sender:
        buffer = sender.new_buffer()
        for point in points(measurement):
            at = questdb.TimestampNanos(point["time"])
            buffer.row(measurement, symbols=point["tags"], columns=point["fields"], at=at)
        for _ in range(TRIES):
            try:
                return sender.flush(buffer, clear=False)
            except questdb.QuestDBError as error:
                if "disconnected" not in str(error):
                    raise
    raise AssertionError("it was cut too often")


SENDS = {
    "influxdb": (send_1, "/write"),
    "influxdb-client": (send_2, "/api/v2/write"),
    "influxdb3-python": (send_3, "/api/v3/write_lp"),
    "questdb": (send_quest, "/write"),
}


@pytest.fixture
def measurement(client, request):
    """One for each test, with its metrics."""
    made = request.node.name
    for field in ("temperature", "humidity", "open"):
        code = f"{made}_{field}"
        assert client.post("/metric/", json={"code": code, "name": code}).status_code == 200
    return made


@pytest.mark.parametrize("name", SENDS)
def test_matrix(between, client, script, name, measurement):
    """Whatever goes wrong, every reading is there, once; numbers beside texts, too."""
    send, path = SENDS[name]
    proxy = between(script, path)
    send(proxy, measurement)
    proxy.wait()
    for field in ("temperature", "humidity", "open"):
        expect(client, f"{measurement}_{field}", wanted(field))
    steps = [seen.step for seen in proxy.seen if seen.path.startswith(path)]
    assert steps[: len(script)] == list(script)
    assert {seen.status for seen in proxy.steps(PASS) if seen.path.startswith(path)} == {204}
    assert len(proxy.steps(BUSY)) == script.count(BUSY)
    if {LOST, LATE} & set(script):
        assert steps.count(PASS) >= 1


def test_default_of_version_3(between, client, measurement):
    """It writes where version 2 does unless it is told otherwise."""
    proxy = between()
    send_3(proxy, measurement, use_v2_api=influxdb_client_3.WriteOptions().use_v2_api)
    assert {seen.path.split("?")[0] for seen in proxy.seen} == {"/api/v2/write"}
    expect(client, f"{measurement}_temperature", wanted("temperature"))


@pytest.mark.parametrize("name", SENDS)
def test_wrong_token(between, client, name, measurement):
    """The library's own error for 401; it doesn't try for ever, and nothing is written."""
    send, path = SENDS[name]
    proxy = between((), path)
    with pytest.raises(Exception, match=r"401|[Uu]nauthorized|no token") as caught:
        send(proxy, measurement, "wrong")
    assert not isinstance(caught.value, AssertionError)
    assert {seen.status for seen in proxy.seen if seen.path.startswith(path)} == {401}
    for field in ("temperature", "humidity", "open"):
        assert readings(client, f"{measurement}_{field}") == {}


BROKEN = "{0} temperature=1 1769817600000000000\n{0} temperature=x\n{0} temperature=2 1769817600001000000"


def test_bad_lines_of_version_1(between, client, measurement):
    """Its error has the line; the good ones are there."""
    lines = BROKEN.format(measurement).split("\n")
    with (
        version_1(between()) as one,
        pytest.raises(
            influxdb.exceptions.InfluxDBClientError, match=r"Line 2, column \d+.*dropped=1"
        ) as caught,
    ):
        one.write_points(lines, protocol="line")
    assert caught.value.code == 400
    expect(client, f"{measurement}_temperature", {((), T_US): 1, ((), T_US + 1000): 2})


def test_bad_lines_of_version_2(between, client, measurement):
    """Its error has the line; nothing is there."""
    with (
        version_2(between()) as two,
        pytest.raises(influxdb_client.rest.ApiException, match="Line 2") as caught,
    ):
        two.write_api(write_options=SYNCHRONOUS).write("any", record=BROKEN.format(measurement))
    assert (caught.value.status, caught.value.message[:6]) == (400, "Line 2")
    assert readings(client, f"{measurement}_temperature") == {}


def test_bad_lines_of_version_3(between, client, measurement):
    """Its error has line and reason; the good lines are there."""
    proxy = between()
    options = {"write_accept_partial": True, "write_use_v2_api": False}
    with version_3(proxy, **options) as three, pytest.raises(InfluxDBPartialWriteError) as caught:
        three.write(BROKEN.format(measurement))
    (line,) = caught.value.line_errors
    assert (line.line_number, line.original_line) == (2, f"{measurement} temperature=x")
    expect(client, f"{measurement}_temperature", {((), T_US): 1, ((), T_US + 1000): 2})


def test_all_or_nothing_of_version_3(between, client, measurement):
    """With ``accept_partial=False`` nothing is there."""
    options = {"write_accept_partial": False, "write_use_v2_api": False}
    with version_3(between(), **options) as three, pytest.raises(InfluxDBPartialWriteError) as caught:
        three.write(BROKEN.format(measurement))
    assert [line.line_number for line in caught.value.line_errors] == [2]
    assert readings(client, f"{measurement}_temperature") == {}


def test_bad_lines_of_questdb(between, measurement):
    """Its error has our sentence, at once: a 400 isn't tried again."""
    proxy = between()
    with quest(proxy) as sender:
        sender.row(measurement, columns={"temperature": float("nan")}, at=questdb.TimestampNanos(1))
        with pytest.raises(questdb.QuestDBError, match="not finite"):
            sender.flush()
    assert [seen.status for seen in proxy.seen if seen.path.startswith("/write")] == [400]


def test_what_libraries_ask(between):
    """Whether it is up, its version and health, a database."""
    proxy = between()
    with version_1(proxy) as one:
        assert one.ping() == "1.8.10"
        one.create_database("any")
        with pytest.raises(influxdb.exceptions.InfluxDBClientError, match="CREATE DATABASE"):
            one.query("SHOW DATABASES")
    with version_2(proxy) as two:
        assert two.ping()
        assert two.version() == "1.8.10"
        health = two.health()
        assert (health.status, health.name) == ("pass", "meterite")
    with version_3(proxy) as three:
        assert three.get_server_version() == "1.8.10"
    with quest(proxy) as sender:
        assert sender.protocol_version == 1
