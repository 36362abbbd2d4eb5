"""``meterite``: serve, verify, compact, events, openapi, version, plugins.

Guaranteed: a setting, an address or a file that can't be used is one line on stderr and exit status 2; ``verify``
exits 0 only if all holds. What a command needs is imported when it runs: ``serve`` doesn't carry the others.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from meterite.cli import plugins, starting
from meterite.cli.events import events
from meterite.model.errors import MeteriteError

cli = typer.Typer(
    help="Meterite keeps people's numbers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(events, name="events")


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes on the one file.")] = 1,
    *,
    reload: Annotated[bool, typer.Option(help="Start again when the code changes.")] = False,
) -> None:
    """Start the service."""
    from meterite.cli import first_start, serving
    from meterite.cli.listening import Listening

    if reload and workers > 1:
        raise typer.BadParameter("--reload goes with one worker only")
    listening = Listening(host, port)
    listening.check()
    first_start.ensure_settings(listening)
    settings = starting.check()  # before any worker starts, so that a mistake is told once
    starting.check_listeners(settings)
    if workers > 1:
        starting.check_handlers(settings)  # one alone tells it as well, and needs plug-ins once only
    serving.serve(host=host, port=port, workers=workers, reload=reload)


@cli.command()
def verify() -> None:
    """Check every page, checksum, count and bound of the file; exits 0 only if all holds."""
    from rich.console import Console

    from meterite.storage import maintenance

    console = Console()
    url = starting.database_url()
    with console.status("reading every row"):
        report = maintenance.verify(url)
    for line in report.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(1)


@cli.command()
def compact() -> None:
    """Compact everything to the last tier and give the space back to the file system."""
    from rich.console import Console

    from meterite.storage import maintenance
    from meterite.storage.database import sqlite_path

    console = Console()

    def progress(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    url = starting.database_url()
    maintenance.compact(url, progress)
    size = sqlite_path(url).stat().st_size / (1 << 20)
    progress(
        f"The file has {size:.1f} MiB: the runs' bytes, and metrics, labels, states, events and times of commits."
    )


@cli.command()
def openapi(
    directory: Annotated[Path, typer.Option(help="The repository's root.", file_okay=False)] = Path(),
) -> None:
    """Write openapi.json, docs/api.md and docs/events/ from the program itself."""
    from meterite.cli import api_docs

    os.environ.setdefault("API_TOKENS", '{"only-to-describe": "nobody"}')  # no .env is made, none is needed
    # By name, as uvicorn does it: the app is the layer above.
    app: Any = importlib.import_module("meterite.app")
    api_docs.write(app.openapi_document(), app.event_schemas(), directory)


@cli.command()
def version() -> None:
    """Print the version, and what is compiled."""
    from importlib import metadata

    from meterite.model import standing
    from meterite.wire import compiled

    try:
        typer.echo(metadata.version("meterite"))
    except metadata.PackageNotFoundError:
        typer.echo("not installed: run from its source")
    for what, built in (
        ("decoders of line protocol and remote write", compiled.COMPILED),
        ("judge of limits", standing.COMPILED),
    ):
        typer.echo(f"{what}: {'compiled' if built else 'plain Python'}")


cli.command()(plugins.plugins)


def main() -> None:
    """Run a command; what the operator can mend is told in one line."""
    try:
        plugins.add_commands(cli, sys.argv[1:])
        cli()
    except MeteriteError as error:
        starting.tell(error)
        sys.exit(starting.UNUSABLE if isinstance(error, starting.MENDABLE) else 1)
