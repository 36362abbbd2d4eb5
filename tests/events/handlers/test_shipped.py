"""What comes with Meterite comes through the plug-ins' door."""

from __future__ import annotations

from meterite.events.configure import find_kinds
from meterite.events.plugins import load_plugins


def test_every_kind_is_found_and_none_failed():
    plugins = load_plugins()
    shipped = [found for found in plugins.found if found.origin == "shipped"]
    assert [found for found in shipped if found.error] == []
    assert find_kinds(plugins).keys() >= {"alertmanager", "apprise", "exec", "log", "record", "webhook"}
