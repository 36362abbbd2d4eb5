"""The first start writes its own settings.

Guaranteed: an existing ``.env`` is never touched, the new one is readable by its owner only, it is there
whole or not at all, and of several processes that start at once exactly one makes it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ORG = "org_01"
DATABASE_URL = "sqlite:///meterite.db"


def write_env(directory: Path, environ: Mapping[str, str]) -> str | None:
    """Write ``.env`` with a random token where nobody named one, and answer that token; else ``None``."""
    if any(name.lower() == "api_tokens" for name in environ):
        return None
    path = directory / ".env"
    if path.exists():
        return None
    token = secrets.token_urlsafe(24)
    lines = [f'api_tokens={{"{token}": "{ORG}"}}']
    if not any(name.lower() == "database_url" for name in environ):
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


def greeting(token: str, address: str) -> str:
    """What a newcomer does next: an address to open, and a line to paste."""
    return (
        "Meterite wrote .env with a new token for the org " + ORG + ".\n"
        f"  open   {address}/docs?x-auth-token={token}\n"
        f"  paste  curl -H 'x-auth-token: {token}' {address}/metric/ "
        '-d \'{"code": "M1", "name": "My first metric"}\'\n'
    )


def ensure_settings(address: str = "http://localhost:8000") -> None:
    """Call before settings are read. Prints the greeting where ``.env`` was made by this very call."""
    token = write_env(Path.cwd(), os.environ)
    if token is not None:
        sys.stderr.write(greeting(token, address))
        sys.stderr.flush()
