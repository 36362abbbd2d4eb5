"""``meterite plugins``, and the commands that plug-ins add.

Guaranteed: plug-ins are loaded only for what needs them: this list, the help, and commands that aren't ours. One that
fails costs a line on stderr, and never a command of ours.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from meterite.model.errors import MeteriteError
from meterite.model.one_line import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer
    from rich.table import Table

    from meterite.events.plugins import Found, Plugins

WIDTH_PIPED = 200
"""Columns where nobody looks at the output but a program."""


def plugins() -> None:
    """List the plug-ins that were found, where, and what became of them."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_PIPED)
    found = _load(shipped=True)
    kinds = _kinds(found)  # first: a plug-in may fail at it
    rows = [_row(each, kinds) for each in found.found]
    console.print(_table(rows))


def add_commands(cli: typer.Typer, arguments: Sequence[str]) -> None:
    """Those of plug-ins, unless what was asked for is ours."""
    if arguments and arguments[0] in _names(cli):
        return
    try:
        found = _load(shipped=False)
    except MeteriteError as error:
        _complain(error.message)
        return
    for call in found.calls("meterite_register_cli"):
        try:
            call.run(cli=cli)
        except Exception as exc:  # noqa: BLE001 - a plug-in may raise whatever it likes
            found.fail(call.plugin, exc)
    for failed in found.failed:
        _complain(f"the plug-in {failed.name} ({failed.origin}) failed: {failed.error}")


def _load(*, shipped: bool) -> Plugins:
    from meterite.events.plugins import load_plugins
    from meterite.settings import load_plugin_settings

    settings = load_plugin_settings()
    return load_plugins(settings.plugins, settings.plugins_dir, shipped=shipped)


def _kinds(plugins: Plugins) -> dict[str, dict[str, str]]:
    """By plug-in: the kinds of handlers that it gives, and what each of them lacks."""
    from meterite.events.configure import find_kinds

    kinds: dict[str, dict[str, str]] = {}
    for name, given in find_kinds(plugins).items():
        kinds.setdefault(given.plugin, {})[name] = given.kind.lacks
    return kinds


def _row(found: Found, kinds: dict[str, dict[str, str]]) -> tuple[str, str, str, str]:
    gives = [hook.removeprefix("meterite_") for hook in found.hooks if hook != "meterite_handler_kinds"]
    gives += [f"kind {kind}" for kind in kinds.get(found.name, ())]
    lacking = [f"lacks {one_line(lacks)}" for lacks in kinds.get(found.name, {}).values() if lacks]
    state = "; ".join(["loaded", *lacking]) if found.error is None else f"failed: {found.error}"
    return found.name, found.origin, ", ".join(gives), state


def _table(rows: list[tuple[str, str, str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("plug-in", "from", "gives", "state", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        style = "red" if row[-1].startswith("failed") else ""
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def _names(cli: typer.Typer) -> set[str]:
    commands = [each.name or getattr(each.callback, "__name__", "") for each in cli.registered_commands]
    return {
        name.replace("_", "-") for name in [*commands, *(str(each.name) for each in cli.registered_groups)]
    }


def _complain(text: str) -> None:
    sys.stderr.write(f"meterite: {one_line(text)}\n")
