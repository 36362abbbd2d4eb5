"""What has to hold before any server or worker is started.

Guaranteed: what the operator can mend is told once, in one line on stderr, before anything is forked or bound.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from meterite.model.errors import MeteriteError, SchemaTooNewError, SettingsError
from meterite.parent import is_worker

if TYPE_CHECKING:
    from meterite.settings import Settings

UNUSABLE: Final = 2
"""The exit status where a setting or a file can't be used."""
WORKER_FAILED: Final = 3
"""Of a worker: uvicorn's and gunicorn's parents start it again for ever if it ends with anything else."""
MENDABLE: Final = (SettingsError, SchemaTooNewError)


def check() -> Settings:
    """The settings, with the database's file made where there was none. SettingsError, SchemaTooNewError."""
    from meterite.settings import load_settings
    from meterite.storage.database import sqlite_path
    from meterite.storage.file import prepare_file

    settings = load_settings()
    prepare_file(sqlite_path(settings.database_url))
    return settings


def check_handlers(settings: Settings) -> None:
    """Whether handlers can be made; runs the code of plug-ins. SettingsError."""
    from meterite.events.deliveries import Sources, check_sources

    check_sources(Sources.of(settings))


def check_listeners(settings: Settings) -> None:
    """Whether their ports can be had, in a process whose workers will want them. SettingsError."""
    from meterite.cli.listening import check_listeners
    from meterite.storage.database import sqlite_path

    path = sqlite_path(settings.database_url)
    check_listeners(settings.listeners, path.with_name(f"{path.name}.listeners.lock"))


def database_url() -> str:
    """Of a file that is there and can be used; none is made. SettingsError, SchemaTooNewError."""
    from meterite.settings import load_settings
    from meterite.storage.database import sqlite_path
    from meterite.storage.file import check_file

    url = load_settings().database_url
    check_file(sqlite_path(url))
    return url


def tell(error: MeteriteError) -> None:
    sys.stderr.write(f"meterite: {error.message}\n")
    sys.stderr.flush()


def failed_status() -> int:
    """The exit status of this process where the app can't be made."""
    return WORKER_FAILED if is_worker() else UNUSABLE
