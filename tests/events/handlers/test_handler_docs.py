"""What the page on handlers says of options is what they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meterite.events.handler import HandlerOptions
from meterite.events.handlers import alertmanager, apprise, log, record, webhook
from meterite.events.handlers import exec as exec_
from meterite.events.handlers.http import HttpOptions

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "handlers.md").read_text(encoding="utf-8")
KINDS = {
    name: kind
    for module in (alertmanager, apprise, exec_, log, record, webhook)
    for name, kind in module.meterite_handler_kinds().items()
}


def documented(title):
    """The options of the tables below a heading."""
    section = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section, f"docs/handlers.md has no section {title}"
    tables = re.findall(r"^\| option \|.*\n\|[-|]+\n((?:\|.*\n)+)", section[1], re.MULTILINE)
    return {name for table in tables for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE)}


def own(options, *bases):
    """The options that a model adds, or whose default it changes."""
    known = {name: field for base in bases for name, field in base.model_fields.items()}
    fields = options.model_fields.items()
    return {name for name, field in fields if name not in known or field.default != known[name].default}


def test_options_of_every_kind():
    assert documented("Options of every kind") == set(HandlerOptions.model_fields)


def test_options_of_calls():
    assert documented("Where a handler may call") == own(HttpOptions, HandlerOptions)


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_a_kind(kind):
    """Each, and no other."""
    options = KINDS[kind].options
    bases = (HttpOptions,) if issubclass(options, HttpOptions) else (HandlerOptions,)
    assert documented(kind) == own(options, *bases)
