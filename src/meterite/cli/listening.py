"""Where a server listens: what it was told, whether that can be, and what to open in a browser.

Guaranteed: an address that is named is the one that this very server was told; where that can't be known, none is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meterite.listener_setting import cant_listen
from meterite.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.listener_setting import ListenerSetting

_HERE: Final = frozenset({"", "0.0.0.0", "::", "127.0.0.1", "::1"})  # noqa: S104 - compared, not bound
_UVICORN: Final = frozenset({"uvicorn", "uvicorn.exe"})


@dataclass(frozen=True, slots=True)
class Listening:
    """A host and a port. ``held``: the server has bound them already."""

    host: str
    port: int
    scheme: str = "http"
    held: bool = False

    @property
    def address(self) -> str | None:
        """None where the system is to choose a port."""
        host = "localhost" if self.host in _HERE else self.host
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}" if self.port else None

    def check(self) -> None:
        """SettingsError where nobody could listen there."""
        if self.held:
            return
        try:
            found = socket.getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError):
            raise self._refusal("is no address that this machine knows") from None
        errors = [error for one in found if (error := _try(one)) is not None]
        for error in errors:
            if error.errno == errno.EADDRINUSE:
                raise self._refusal(
                    f"is taken by another program; choose another port, such as --port {self.port % 65535 + 1}"
                )
            if error.errno == errno.EACCES:
                raise self._refusal("can't be listened on by this user; choose a port above 1023")
        if len(errors) == len(found):
            raise self._refusal("is no address of this machine")

    def _refusal(self, why: str) -> SettingsError:
        return SettingsError("address", f"{self.host or '*'}, port {self.port}, {why}.")


def check_listeners(settings: Sequence[ListenerSetting], lock: Path) -> None:
    """SettingsError where one couldn't listen; nothing is said where another process, which has the lock, does."""
    if not settings:
        return
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for one in settings:
            family = socket.AF_INET6 if ":" in one.host else socket.AF_INET
            kind = socket.SOCK_DGRAM if one.kind == "statsd" else socket.SOCK_STREAM
            error = _try((family, kind, 0, "", (one.host, one.port)))
            if error is not None:
                raise cant_listen(one, error)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def _try(found: tuple[Any, ...]) -> OSError | None:
    family, kind, protocol, _, address = found
    try:
        with socket.socket(family, kind, protocol) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as exc:
        return exc
    return None


def of_uvicorn(argv: Sequence[str]) -> Listening | None:
    """What ``uvicorn`` was told, as it reads its own command line; None where this process is another program."""
    program = Path(argv[0])
    if program.name not in _UVICORN and program.parts[-2:] != ("uvicorn", "__main__.py"):
        return None
    import click
    from uvicorn.main import main as command

    try:
        with command.make_context("uvicorn", list(argv[1:])) as context:
            told = context.params
    except (click.ClickException, click.exceptions.Exit):
        return None
    if told["uds"] is not None or told["fd"] is not None:
        return None
    secure = told["ssl_certfile"] is not None or told["ssl_keyfile"] is not None
    several = (told["workers"] or int(os.environ.get("WEB_CONCURRENCY") or 1)) > 1
    return Listening(
        told["host"], told["port"], "https" if secure else "http", held=bool(told["reload"] or several)
    )


def of_gunicorn(config: Any) -> Listening | None:
    """The first address that ``gunicorn`` is bound to; None where it is no host and port."""
    address = config.address[0]
    if not isinstance(address, tuple):
        return None
    return Listening(address[0], address[1], "https" if config.is_ssl else "http", held=True)
