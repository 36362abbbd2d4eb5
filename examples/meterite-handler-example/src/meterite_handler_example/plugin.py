"""Everything a plug-in can do, once each: handle events, give a kind of handler, filter, add a command.

The entry point of the group ``meterite`` names this module. Where the line of each event goes is said by the
environment variable ``METERITE_EXAMPLE_FILE``; without it the plug-in itself does nothing, and the kind of handler
``example-file`` can still be named in the setting ``handlers``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from meterite.events.hooks import Event, Handler, HandlerOptions, Kind, Refused, Retry, Tools, hookimpl

VARIABLE = "METERITE_EXAMPLE_FILE"


def write_line(path: Path, event: Event) -> None:
    """One line an event, as JSON, appended in one write so that several workers don't mix theirs.

    An event may come more than once, with the same id: whoever reads the file drops those that he has seen.
    """
    line = json.dumps(event.to_dict(), separators=(",", ":")) + "\n"
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line.encode())
    except IsADirectoryError:
        raise Refused(f"{path} is a directory") from None  # trying again would change nothing
    except OSError as exc:
        raise Retry(f"{path} can't be written: {exc.strerror}") from None


@hookimpl
def meterite_handle_event(event: Event) -> None:
    """Told every event of every org. A plain function: it runs in a thread, and may block."""
    path = os.environ.get(VARIABLE)
    if path:
        write_line(Path(path), event)


class FileOptions(HandlerOptions):
    """What ``{"name": "…", "kind": "example-file", "path": "…"}`` may say, beside what every handler may."""

    path: Path


class FileHandler(Handler):
    """The same, told only what its options ask for: ``orgs``, ``types``, ``metrics``, ``min_gap``."""

    def __init__(self, options: FileOptions) -> None:
        self._path = options.path

    def handle(self, event: Event) -> None:
        write_line(self._path, event)


def _make(options: FileOptions, _tools: Tools) -> Handler:
    return FileHandler(options)


@hookimpl
def meterite_handler_kinds() -> dict[str, Kind[FileOptions]]:
    return {"example-file": Kind(FileOptions, _make)}


@hookimpl
def meterite_filter_event(event: Event) -> bool | None:
    """Metrics whose code begins with ``test.`` are nobody's business."""
    metric = event.data.get("metric") or {}
    return False if str(metric.get("code", "")).startswith("test.") else None
