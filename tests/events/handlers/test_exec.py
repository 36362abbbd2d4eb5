"""``exec``, with real programs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from events.given import an_event
from meterite.events.handlers.exec import ExecHandler, ExecOptions, meterite_handler_kinds
from meterite.events.hooks import Refused, Retry, Tools

PROGRAM_S = 20


def options(*command, **changes):
    return ExecOptions.model_validate(
        {"name": "page", "kind": "exec", "allow_exec": True, "command": command} | changes
    )


def python(code, *arguments, **changes):
    """A handler whose program is this code."""
    return ExecHandler(options(sys.executable, "-c", code, *arguments, **changes))


def run(handler, event=None):
    asyncio.run(asyncio.wait_for(handler.handle(event or an_event()), PROGRAM_S))


def test_the_event_is_on_standard_input(tmp_path):
    """One JSON document, as CloudEvents writes it; its id and type are in the environment, too."""
    code = "import os, sys; open(sys.argv[1], 'w').write(sys.stdin.read() + os.environ['METERITE_EVENT_ID'])"
    event = an_event()
    run(python(code, str(tmp_path / "out")), event)
    document, _, id_ = (tmp_path / "out").read_text().rpartition("\n")
    assert json.loads(document) == event.to_dict()
    assert id_ == event.id


def test_the_environment_holds_no_token(tmp_path, monkeypatch):
    """Nothing of the service's environment is handed on but where programs are found and what is asked for."""
    monkeypatch.setenv("API_TOKENS", "hush")
    code = "import os, sys, json; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ)))"
    run(python(code, str(tmp_path / "out"), env={"PAGER_KEY": "k1"}))
    environment = json.loads((tmp_path / "out").read_text())
    ours = {"METERITE_EVENT_ID", "METERITE_EVENT_TYPE", "PAGER_KEY", "PATH", "LANG", "TZ"}
    assert environment["PAGER_KEY"] == "k1"
    assert "API_TOKENS" not in environment
    assert set(environment) - ours <= {"LC_CTYPE"}  # which Python sets itself


def test_arguments_go_through_no_shell(tmp_path):
    """What a shell would obey stays an argument."""
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    run(python(code, str(tmp_path / "out"), "$(touch pwned); *"))
    assert (tmp_path / "out").read_text() == "$(touch pwned); *"


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("import sys; sys.exit('no such pager')", Retry, r"^the program ended with 1: no such pager$"),
        ("import sys; sys.exit(65)", Refused, r"^the program ended with 65$"),
        ("import os; os.kill(os.getpid(), 15)", Retry, r"^the program was ended by SIGTERM$"),
        (
            "import sys; sys.stderr.write('x' * 10**7); sys.exit(3)",
            Retry,
            r"^the program ended with 3: x{280,300}…$",
        ),
        ("import sys; print('y' * 10**7); sys.exit(65)", Refused, r"^the program ended with 65$"),
    ],
)
def test_how_it_ended(code, error, said):
    """65 is never again, all else again; the end of what it wrote to standard error is told, however much it was."""
    with pytest.raises(error, match=said):
        run(python(code))


def test_a_program_that_does_not_read():
    """Its status decides, not its interest."""
    run(python("import os; os.close(0)"), an_event(padding="x" * 10**6))


def test_a_program_that_cannot_be_started(tmp_path):
    """Gone since the start: told, and tried again."""
    program = tmp_path / "program"
    program.write_text("no program\n")
    program.chmod(0o700)
    handler = ExecHandler(options(str(program)))
    program.unlink()
    with pytest.raises(Retry, match=r"^the program can't be started: No such file or directory$"):
        run(handler)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


FAMILY = """
import os, sys, time
child = os.fork()
if child == 0:
    time.sleep(600)
with open(sys.argv[1], "w") as pipe:
    pipe.write(f"{os.getpid()} {child}")
if len(sys.argv) == 2:
    time.sleep(600)
"""


async def first_line(pipe):
    return await asyncio.to_thread(pipe.read_text)


def test_the_whole_group_is_killed_when_its_time_is_up(tmp_path):
    """A cancelled call leaves neither the program nor its child."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def scenario():
        call = asyncio.create_task(python(FAMILY, str(pipe)).handle(an_event()))
        pids = (await first_line(pipe)).split()
        assert all(map(is_running, pids))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return pids

    program, child = asyncio.run(asyncio.wait_for(scenario(), PROGRAM_S))
    assert not is_running(program)
    wait_until_gone(child)


def test_nobody_is_left_behind_by_a_program_that_ended(tmp_path):
    """A child in the background ends with its parent, though it holds the pipe of standard error open."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def scenario():
        pids, _ = await asyncio.gather(first_line(pipe), python(FAMILY, str(pipe), "end").handle(an_event()))
        return pids.split()

    wait_until_gone(asyncio.run(asyncio.wait_for(scenario(), PROGRAM_S))[1])


def wait_until_gone(pid):
    """SIGKILL was sent; the kernel ends it when it sees fit."""
    try:
        fd = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    try:
        import select

        assert select.select([fd], [], [], PROGRAM_S)[0]
    finally:
        os.close(fd)


def test_it_is_opted_into():
    """Without ``allow_exec`` there is no handler."""
    kind = meterite_handler_kinds()["exec"]
    with pytest.raises(ValueError, match="allow_exec"):
        kind.make(options(sys.executable, allow_exec=False), Tools(None))


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ["python"]},
        {"command": []},
        {"command": ["/nowhere/program"]},
        {"command": ["/etc/passwd"]},
        {"command": [sys.executable, "a\0b"]},
        {"env": {"A=B": "c"}},
        {"env": {"A": "\0"}},
        {"shell": True},
    ],
)
def test_options_that_cannot_be_used(changes):
    """Programs that aren't there or can't be run, and what no process can be given."""
    with pytest.raises(ValidationError):
        options(sys.executable, **changes)


def test_secrets_do_not_show():
    """The values of ``env`` are secrets."""
    made = options(sys.executable, env={"KEY": "hush"})
    assert made.env["KEY"] == SecretStr("hush")
    assert "hush" not in f"{made!r} {made.model_dump_json()}"
