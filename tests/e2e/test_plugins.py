"""Handlers from outside, seen to be called by real servers: installed, by dotted path, out of ``plugins_dir``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import time
import venv

import pytest

from e2e.server import ROOT, Server

EXAMPLE = ROOT / "examples" / "meterite-handler-example"
PLUGIN = EXAMPLE / "src" / "meterite_handler_example" / "plugin.py"
VARIABLE = "METERITE_EXAMPLE_FILE"
WAIT_S = 30
STOP_S = 10.0


def push_outside(server, code="boiler", value=11):
    """A metric that takes readings up to 10, and one above."""
    client = server.client()
    client.post("/metric/", json={"code": code, "name": code, "max_reading": 10}).raise_for_status()
    client.post(f"/metric/{code}", json={"reading": value}).raise_for_status()
    return client


def lines(path, count=1):
    """What the plug-in wrote, once there is so much of it."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        text = path.read_text() if path.exists() else ""
        if text.count("\n") >= count:
            return [json.loads(line) for line in text.splitlines()]
        time.sleep(0.02)
    raise AssertionError(f"{path} has not {count} lines")


def check_called(server, path):
    """The event that the plug-in was told is the event that can be asked for; its delivery is done."""
    client = push_outside(server)
    (told,) = lines(path)
    (event,) = client.get("/events").json()["events"]
    assert told == {name: event[name] for name in told}
    assert told["type"] == "meterite.reading.above_max"
    assert told["data"]["readings"]["last"]["reading"] == 11
    push_outside(server, "test.boiler")  # the example's filter
    push_outside(server, "pump")
    assert [each["subject"] for each in lines(path, 2)] == ["boiler", "pump"]


# Found in three ways


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh virtual environment, with the service and the example installed into it from their sources.

    What they need is taken from the environment of the tests, so that no network is asked.
    """
    path = tmp_path_factory.mktemp("fresh")
    venv.create(path / "venv", with_pip=False)
    purelib = next((path / "venv" / "lib").glob("python*/site-packages"))
    (purelib / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    sources = path / "sources"
    sources.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "requirements"):
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    shutil.copytree(EXAMPLE, path / "example", ignore=ignored)
    python = path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--ignore-installed"]
    done = subprocess.run(
        [*install, *offline, str(sources), str(path / "example")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return python


def installed(python, server):
    command = [str(python.parent / "meterite"), "serve"]
    return [*command, "--port", str(server.port), "--workers", str(server.workers)]


def test_an_installed_distribution_is_called(environment, start, tmp_path):
    """Nothing but ``pip install`` is needed; the kind that it gives can be named in the settings."""
    handlers = [
        {"name": "boilers", "kind": "example-file", "path": str(tmp_path / "boilers"), "metrics": "boi*"}
    ]
    env = {VARIABLE: str(tmp_path / "all"), "HANDLERS": json.dumps(handlers), "PYTHONPATH": ""}
    server = start(command=lambda server: installed(environment, server), env=env)
    check_called(server, tmp_path / "all")
    assert [each["subject"] for each in lines(tmp_path / "boilers")] == ["boiler"]


def test_an_installed_distribution_is_listed(environment, tmp_path):
    """With its version, and all that it gives."""
    done = subprocess.run(
        [environment.parent / "meterite", "plugins"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("example ")]
    for part in (
        "meterite-handler-example 1.0.0",
        "handle_event",
        "filter_event",
        "kind example-file",
        "loaded",
    ):
        assert part in row


def test_the_examples_own_tests_pass(environment):
    """As somebody who copied it would run them."""
    done = subprocess.run(
        [environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=environment.parent.parent.parent / "example",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dotted_path_is_called(start, tmp_path, workers):
    """Of anything that can be imported, by whichever worker: each event once."""
    env = {
        VARIABLE: str(tmp_path / "all"),
        "PLUGINS": "meterite_handler_example.plugin",
        "PYTHONPATH": f"{ROOT / 'src'}:{EXAMPLE / 'src'}",
    }
    check_called(start(workers=workers, env=env), tmp_path / "all")


def put(directory, name, text):
    directory.mkdir(mode=0o755, exist_ok=True)
    file = directory / name
    file.write_text(textwrap.dedent(text))
    file.chmod(0o644)


def test_a_file_in_plugins_dir_is_called(start, tmp_path):
    """As it is, copied there."""
    put(tmp_path / "plugins", "example.py", PLUGIN.read_text())
    env = {VARIABLE: str(tmp_path / "all"), "PLUGINS_DIR": str(tmp_path / "plugins")}
    check_called(start(env=env), tmp_path / "all")


# What may go wrong

BROKEN = {
    "broken": "raise SystemExit('no luck')",
    "unknown_hook": "from meterite.events.hooks import hookimpl\n@hookimpl\ndef meterite_handel(event): ...\n",
}


def test_a_broken_plugin_stops_nobody(start, tmp_path):
    """The service starts, the others are called, and the log says what failed and why."""
    put(tmp_path / "plugins", "example.py", PLUGIN.read_text())
    for name, text in BROKEN.items():
        put(tmp_path / "plugins", f"{name}.py", text)
    env = {VARIABLE: str(tmp_path / "all"), "PLUGINS_DIR": str(tmp_path / "plugins"), "LOG_FORMAT": "json"}
    server = start(env=env)
    check_called(server, tmp_path / "all")
    logged = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    failed = {entry["plugin"]: entry["reason"] for entry in logged if entry["event"] == "plugin.failed"}
    assert failed == {
        "broken": "SystemExit: no luck",
        "unknown_hook": "ValueError: there is no hook meterite_handel",
    }


WEBHOK = {"HANDLERS": '[{"name": "a", "kind": "webhok", "secret": "hush-hush"}]'}


@pytest.mark.parametrize(
    ("env", "said", "workers"),
    [
        (
            {"PLUGINS": "no.such", "STRICT_PLUGINS": "true"},
            "strict_plugins: no.such (plugins) can't be loaded: ",
            1,
        ),
        ({"PLUGINS_DIR": "/no/such/place"}, "plugins_dir can't be used: /no/such/place: No such file", 1),
        (WEBHOK, "handlers 'a' (webhok): there is no kind 'webhok'; did you mean webhook?", 1),
        (WEBHOK, "handlers 'a' (webhok): there is no kind 'webhok'; did you mean webhook?", 3),
    ],
)
def test_a_mistake_is_told_once(tmp_path, env, said, workers):
    """In one line, however many workers there would be; the service doesn't start, and no secret is shown."""
    server = Server(tmp_path / "server", workers=workers, env=env)
    server.path.mkdir()
    server.launch()
    try:
        assert server.process.wait(WAIT_S) == 2
    finally:
        server.close()
    text = server.text()
    assert text.count(said) == 1
    assert [line for line in text.splitlines() if line] == [text.strip()]
    assert "hush-hush" not in text


UNRULY = """
    import asyncio, threading, time
    from meterite.events.hooks import hookimpl

    @hookimpl
    def meterite_startup():
        threading.Thread(target=time.sleep, args=(3600,)).start()  # no daemon: Python would wait for it

    class Blocks:
        @hookimpl
        def meterite_handle_event(self, event):
            time.sleep(3600)

    class BlocksItsLoop:
        @hookimpl
        async def meterite_handle_event(self, event):
            time.sleep(3600)

    class TakesNoCancel:
        @hookimpl
        async def meterite_handle_event(self, event):
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass

    class Raises:
        @hookimpl
        def meterite_handle_event(self, event):
            raise BaseException("no")

    class Hangs:
        @hookimpl
        def meterite_shutdown(self):
            time.sleep(3600)

        @hookimpl
        def meterite_filter_event(self, event):
            time.sleep(3600)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_unruly_plugins_hurt_nobody(start, tmp_path, workers):
    """Handlers that block, take no cancel, raise BaseException, leave threads behind: others are called, readings are
    recorded, and a stop takes ten seconds at most.
    """
    put(tmp_path / "plugins", "unruly.py", UNRULY)
    put(tmp_path / "plugins", "example.py", PLUGIN.read_text())
    (tmp_path / "unruly_module.py").write_text(textwrap.dedent(UNRULY))
    names = ("Blocks", "BlocksItsLoop", "TakesNoCancel", "Raises", "Hangs")
    env = {
        VARIABLE: str(tmp_path / "all"),
        "PLUGINS_DIR": str(tmp_path / "plugins"),
        "PLUGINS": ",".join(f"unruly_module.{name}" for name in names),
        "PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}",
    }
    server = start(workers=workers, env=env)
    client = push_outside(server)
    assert [each["subject"] for each in lines(tmp_path / "all")] == ["boiler"]
    for value in range(50):
        client.post("/metric/boiler", json={"reading": value}).raise_for_status()
    began = time.monotonic()
    assert server.stop(STOP_S + 5) == 0
    assert time.monotonic() - began < STOP_S
