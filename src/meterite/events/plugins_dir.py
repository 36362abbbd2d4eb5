"""Files that are run because they lie in ``plugins_dir``: only those that nobody else may change.

What this file guarantees: the directory, and each file in it, belong to the user who runs the service or to root, and
neither the group nor others may write to them; a link is judged by where it leads, and so is the directory in which
that lies. Of the directories above, none may be writable by everybody, unless only owners may rename there (``/tmp``).
What was checked is what is run.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from meterite.model.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES_MAX: Final = 1024 * 1024
FILES_MAX: Final = 1000
_WRITERS: Final = stat.S_IWGRP | stat.S_IWOTH


class UnsafeFileError(Exception):
    """Somebody else may change it."""


def list_plugins(directory: Path) -> list[Path]:
    """The directory's ``*.py`` by name; those that begin with an underscore are the others' parts. SettingsError."""
    try:
        real = directory.resolve(strict=True)
        _check_directory(real)
        files = sorted(file for file in real.iterdir() if file.suffix == ".py" and file.stem.isidentifier())
    except (OSError, UnsafeFileError, RuntimeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise SettingsError("plugins-dir", f"plugins_dir can't be used: {directory}: {why}") from None
    if len(files) > FILES_MAX:
        raise SettingsError("plugins-dir", f"plugins_dir can't be used: more than {FILES_MAX} files")
    return [file for file in files if not file.name.startswith("_")]


def read_plugin(file: Path) -> bytes:
    """The source, of a file that was checked while it was open. UnsafeFileError, OSError."""
    real = file.resolve(strict=True)
    if real.parent != file.parent:
        _check_directory(real.parent)
    number = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(number, "rb") as opened:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFileError("it is no file")
        _check(status, "the file")
        source = opened.read(FILE_BYTES_MAX + 1)
    if len(source) > FILE_BYTES_MAX:
        raise UnsafeFileError("the file is larger than a plug-in may be")
    return source


def _check_directory(real: Path) -> None:
    status = real.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeFileError("it is no directory")
    _check(status, "the directory")
    for above in real.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UnsafeFileError(f"everybody may write to {above}, above it")


def _check(status: os.stat_result, what: str) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise UnsafeFileError(f"{what} belongs to another user")
    if status.st_mode & _WRITERS:
        raise UnsafeFileError(f"others may write to {what}; take that away with chmod go-w")
