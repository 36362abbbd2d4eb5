"""The first start writes its own settings.

Guaranteed: an existing ``.env`` is never touched, the new one is readable by its owner only, it is there
whole or not at all, and of several processes that start at once exactly one makes it. The address it tells is that of
this server, which can be had.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meterite.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meterite.cli.listening import Listening

ORG = "org_01"
API_KEY_NAME = "x-auth-token"
DATABASE_URL = "sqlite:///meterite.db"


def is_first(directory: Path, environ: Mapping[str, str]) -> bool:
    """Whether nobody named a token yet."""
    return not _named(environ, "api_tokens") and not (directory / ".env").exists()


def write_env(directory: Path, environ: Mapping[str, str]) -> str | None:
    """Write ``.env`` with a random token where nobody named one, and answer that token; else ``None``."""
    if not is_first(directory, environ):
        return None
    path = directory / ".env"
    token = secrets.token_urlsafe(24)
    lines = [f'api_tokens={{"{token}": "{ORG}"}}']
    if not _named(environ, "database_url"):
        lines.insert(0, f'database_url="{DATABASE_URL}"')
    return token if _create(path, "\n".join(lines) + "\n") else None


def _create(path: Path, text: str) -> bool:
    """Write under another name, then link: whoever links first wins, and nobody reads a half."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
            return True
        return False
    finally:
        draft.unlink()


def greeting(token: str, address: str | None, api_key_name: str = API_KEY_NAME) -> str:
    """What a newcomer does next: an address to open, and a line to paste."""
    where = address or "<address>"
    return (
        f"Meterite wrote .env with a new token for the org {ORG}.\n"
        f"  open   {where}/docs?{api_key_name}={token}\n"
        f"  paste  curl -H '{api_key_name}: {token}' {where}/metric/M1/readings -d 42\n"
        + ("" if address else "where <address> is the one that this server was told to listen on.\n")
    )


def ensure_settings(listening: Listening | None) -> bool:
    """Call before settings are read: whether ``.env`` was made by this very call, which prints the greeting.

    SettingsError where nobody could listen there: then nothing is written.
    """
    if not is_first(Path.cwd(), os.environ):
        return False
    if listening is not None:
        listening.check()
    try:
        token = write_env(Path.cwd(), os.environ)
    except OSError as exc:
        raise SettingsError(
            "env-file",
            f".env can't be written: {exc.strerror}; set API_TOKENS, or start in another directory.",
        ) from exc
    if token is None:
        return False
    name = next((os.environ[name] for name in os.environ if name.lower() == "api_key_name"), API_KEY_NAME)
    sys.stderr.write(greeting(token, listening.address if listening else None, name))
    sys.stderr.flush()
    return True


def _named(environ: Mapping[str, str], setting: str) -> bool:
    return any(name.lower() == setting for name in environ)
