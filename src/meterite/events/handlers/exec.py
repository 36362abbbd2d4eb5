"""``exec``: runs a program for each event, with the event as one JSON document on its standard input.

What this file guarantees: nothing is run unless the handler says ``allow_exec``, and never through a shell. The
program gets none of the service's environment but ``PATH``, ``LANG``, ``TZ`` and what ``env`` names, so no token. It is
a process group of its own, of which nobody is left when it ended, when its time is up or when the service stops; its
output is dropped, and of its errors the end is kept for the reason.

Status 0: delivered. 65 (EX_DATAERR of sysexits.h): refused, never again. Any other, or a signal: again later.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from pydantic import Field, SecretStr, field_validator

from meterite.events.hooks import Event, Handler, HandlerOptions, Kind, Refused, Retry, Tools, hookimpl
from meterite.model.one_line import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REFUSED: Final = 65
KEPT_ENVIRONMENT: Final = ("PATH", "LANG", "TZ")
ERRORS_BYTES_KEPT: Final = 400
KILLED_S: Final = 0.5
"""How long to wait for what SIGKILL has ended."""
_CHUNK: Final = 65536


class ExecOptions(HandlerOptions):
    """``command`` is the program and its arguments; ``env`` is added to its environment."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    allow_exec: bool = False
    env: dict[str, SecretStr] = Field(default_factory=dict)
    concurrency: Annotated[int, Field(ge=1, le=32)] = 2

    @field_validator("command")
    @classmethod
    def _command(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in part for part in command):
            raise ValueError("must hold no NUL characters")
        program = Path(command[0])
        if not program.is_absolute():
            raise ValueError("must begin with the absolute path of a program")
        if not program.is_file() or shutil.which(program) is None:
            raise ValueError(f"must begin with a program that can be run; {program} can't")
        return command

    @field_validator("env")
    @classmethod
    def _env(cls, env: dict[str, SecretStr]) -> dict[str, SecretStr]:
        values = [secret.get_secret_value() for secret in env.values()]
        if any(not name or "=" in name for name in env) or any("\0" in text for text in [*env, *values]):
            raise ValueError("must be an object from names to strings, without NUL characters")
        return env


class ExecHandler(Handler):
    """One process an event."""

    def __init__(self, options: ExecOptions) -> None:
        self._command = options.command
        self._env = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        self._env |= {name: secret.get_secret_value() for name, secret in options.env.items()}

    async def handle(self, event: Event) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[tuple[int, bytes]] = loop.create_future()

        def tell(status: int, errors: bytes) -> None:
            with suppress(RuntimeError):  # the loop is closed, nobody asks any more
                loop.call_soon_threadsafe(_settle, ended, (status, errors))

        process = self._start(event)
        threading.Thread(target=_watch, args=(process, tell), name="meterite-exec", daemon=True).start()
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            if process.returncode is None:
                _kill_group(process)
            await asyncio.wait([ended], timeout=KILLED_S)
            raise
        _judge(*ended.result())

    def _start(self, event: Event) -> subprocess.Popen[bytes]:
        """From a file and not from a pipe: who doesn't read it makes nobody wait."""
        with TemporaryFile() as document:
            document.write(msgspec.json.encode(event.to_dict()) + b"\n")
            document.seek(0)
            try:
                return subprocess.Popen(  # noqa: S603 - the operator's own command, and no shell
                    self._command,
                    stdin=document,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=self._env | {"METERITE_EVENT_ID": event.id, "METERITE_EVENT_TYPE": event.type},
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as exc:
                raise Retry(f"the program can't be started: {exc.strerror}") from None


def _settle(ended: asyncio.Future[tuple[int, bytes]], how: tuple[int, bytes]) -> None:
    if not ended.done():
        ended.set_result(how)


def _watch(process: subprocess.Popen[bytes], tell: Callable[[int, bytes], None]) -> None:
    """Until the program ended. asyncio's own waiting goes on while anybody holds the pipe open."""
    end = bytearray()
    reading = threading.Thread(target=_read_end, args=(process, end), name="meterite-exec", daemon=True)
    reading.start()
    status = process.wait()
    _kill_group(process)  # those left behind; a group's number isn't given away while it has members
    reading.join(KILLED_S)
    tell(status, bytes(end))


def _read_end(process: subprocess.Popen[bytes], end: bytearray) -> None:
    assert process.stderr is not None
    with process.stderr as errors:
        while chunk := os.read(errors.fileno(), _CHUNK):
            end += chunk
            del end[:-ERRORS_BYTES_KEPT]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The process and all it started that stayed in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _judge(status: int, errors: bytes) -> None:
    if status == 0:
        return
    how = f"the program ended with {status}" if status > 0 else _signalled(-status)
    said = one_line(errors.decode(errors="replace"))
    reason = f"{how}: {said}" if said else how
    raise (Refused if status == REFUSED else Retry)(reason)


def _signalled(number: int) -> str:
    with suppress(ValueError):
        return f"the program was ended by {signal.Signals(number).name}"
    return f"the program was ended by signal {number}"


def _make(options: ExecOptions, _tools: Tools) -> Handler:
    if not options.allow_exec:
        raise ValueError('runs programs only where it says "allow_exec": true')
    return ExecHandler(options)


@hookimpl
def meterite_handler_kinds() -> Mapping[str, Kind[Any]]:
    return {"exec": Kind(ExecOptions, _make)}
