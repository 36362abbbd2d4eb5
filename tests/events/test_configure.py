"""From settings and plug-ins to handlers, and what is said of mistakes."""

from __future__ import annotations

import asyncio
import sys

import pluggy
import pytest
from pydantic import BaseModel, SecretStr, field_validator

from events.given import an_event
from meterite.events.configure import PLUGIN, make_handlers
from meterite.events.handler import Interest, matches
from meterite.events.hooks import Handler, HandlerOptions, Hooks, Kind, Tools, hookimpl
from meterite.events.plugins import Found, Plugins, load_plugins
from meterite.model.errors import SettingsError
from meterite.model.event import EventType

SECRET = "hush-hush-123456"
TOOLS = Tools(None)


class PagerOptions(HandlerOptions):
    key: SecretStr
    number: int = 1

    @field_validator("key")
    @classmethod
    def _key(cls, key):
        if len(key) < 4:
            raise ValueError("must have four characters")
        return key


class Pager(Handler):
    def __init__(self, options):
        self.options = options

    async def handle(self, event): ...


class Strict(BaseModel):
    a: int


def make_pager(options, _tools):
    if options.number == 2:
        raise ValueError("can't call number 2")
    if options.number == 3:
        raise OSError("no modem")
    if options.number == 4:
        return "pager"
    if options.number == 5:
        Strict(a=options.key.get_secret_value())
    return Pager(options)


class PagerPlugin:
    @hookimpl
    def meterite_handler_kinds(self):
        return {"pager": Kind(PagerOptions, make_pager)}


def plugins_of(**by_name):
    plugins = Plugins(pluggy.PluginManager("meterite"))
    plugins.manager.add_hookspecs(Hooks)
    for name, plugin in by_name.items():
        plugins.manager.register(plugin, name)
        plugins.found.append(Found(name, "test"))
    return plugins


def pager(plugins=None, **options):
    setting = {"name": "ops", "kind": "pager", "key": SECRET} | options
    return make_handlers([setting], plugins or plugins_of(acme=PagerPlugin()), TOOLS)


def test_a_handler_is_made_from_its_options():
    """Those of all handlers, and those of its kind; durations as people write them."""
    (made,) = pager(
        orgs="org_01", types=["meterite.reading.above_max"], metrics="a*", min_gap="1m", timeout="2500ms"
    )
    assert (made.name, made.options.min_gap, made.options.timeout) == ("ops", 60.0, 2.5)
    assert made.handler.options.key.get_secret_value() == SECRET
    assert made.interest == Interest(
        frozenset({"org_01"}), frozenset({"meterite.reading.above_max"}), ("a*",)
    )
    assert SECRET not in f"{made!r} {made.options!r}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "pagre"}, r"\(pagre\): there is no kind 'pagre'; did you mean pager\?$"),
        ({"kind": "fax"}, r"there is no kind 'fax'; there are pager$"),
        ({"key": None}, r"key must be a string$"),
        ({"key": "abc"}, r"key must have four characters$"),
        ({"keys": SECRET}, r"has no option keys; did you mean key\?$"),
        ({"type": "meterite.reading.above_max"}, r"has no option type; did you mean types\?$"),
        ({"zzz": SECRET}, r"has no option zzz; there are concurrency, .*number, "),
        ({"number": SECRET}, r"number must be a whole number$"),
        ({"number": 2}, r"can't call number 2$"),
        ({"number": 3}, r"can't be made: OSError: no modem$"),
        ({"number": 4}, r"made something else"),
        ({"number": 5}, r"can't be made: Strict is not valid$"),
        (
            {"types": ["meterite.reading.above"]},
            r"each of types must be 'meterite\.reading\.above_max', ",
        ),
        ({"types": []}, r"types must not be empty$"),
        ({"orgs": []}, r"orgs must not be empty$"),
        ({"metrics": 5}, r"metrics must be a list$"),
        ({"metrics": [5]}, r"each of metrics must be a string$"),
        (
            {"min_gap": "1 minute"},
            r"min_gap must be a duration such as 30s, 5m or 1h, or a number of seconds$",
        ),
        ({"min_gap": -1}, r"min_gap must be 0 or more, in seconds$"),
        ({"timeout": 0}, r"timeout must be more than 0, in seconds$"),
        ({"timeout": "1h"}, r"timeout must be 300 at most, in seconds$"),
        ({"concurrency": 1000}, r"concurrency must be 256 at most$"),
        ({"tries": 0}, r"tries must be 1 or more$"),
        ({"ordered": "perhaps"}, r"ordered must be true or false$"),
        ({"kind": PLUGIN}, r"names no plug-in that handles events; there are none$"),
    ],
)
def test_a_mistake_is_one_line(options, said):
    """It names setting, handler and option, and repeats no value."""
    with pytest.raises(SettingsError, match=said) as caught:
        pager(**options)
    message = caught.value.message
    assert message.startswith(f"handlers 'ops' ({options.get('kind', 'pager')}): ")
    assert "\n" not in message
    assert SECRET not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_option_that_is_missing():
    """It is named."""
    with pytest.raises(SettingsError, match=r"^handlers 'ops' \(pager\): needs key$"):
        make_handlers([{"name": "ops", "kind": "pager"}], plugins_of(acme=PagerPlugin()), TOOLS)


class Told:
    def __init__(self):
        self.events = []

    @hookimpl
    def meterite_handle_event(self, event):
        self.events.append(event)


class ToldLater(Told):
    @hookimpl
    async def meterite_handle_event(self, event):
        self.events.append(event)


def test_a_plugin_that_handles_events_is_a_handler():
    """Under a name of its own, whichever way it is written; its options may be set, too."""
    now, later = Told(), ToldLater()
    plugins = plugins_of(now=now, **{"acme mail": later})
    settings = [{"name": "plugin:now", "kind": "plugin", "metrics": "b*", "concurrency": 1}]
    first, second = make_handlers(settings, plugins, TOOLS)
    assert (first.name, first.options.concurrency, first.interest.metrics) == ("plugin:now", 1, ("b*",))
    assert (second.name, second.interest) == ("plugin:acme_mail", Interest())
    event = an_event()
    first.handler.handle(event)
    asyncio.run(second.handler.handle(event))
    assert (now.events, later.events) == ([event], [event])


class Broken:
    @hookimpl
    def meterite_handler_kinds(self):
        raise BrokenPipeError("gone")


class Thief(PagerPlugin):
    pass


class Confused:
    @hookimpl
    def meterite_handler_kinds(self):
        return {"x": Pager}


def test_kinds_that_fail_are_told():
    """The others' are there; the first to give a kind has it."""
    plugins = plugins_of(broken=Broken(), acme=PagerPlugin(), thief=Thief(), confused=Confused())
    assert len(pager(plugins)) == 1
    assert {found.name: found.error for found in plugins.found} == {
        "broken": "BrokenPipeError: gone",
        "acme": None,
        "thief": "ValueError: another plug-in gives the kind 'pager'",
        "confused": "TypeError: 'x' is no name of a Kind",
    }
    with pytest.raises(SettingsError, match=r"there are pager; not loaded: broken, thief, confused$"):
        pager(plugins, kind="x")


def test_what_is_shipped_is_made():
    """By the names of the issue, from the fewest options."""
    settings = [
        {"name": "a", "kind": "log"},
        {"name": "b", "kind": "exec", "command": [sys.executable], "allow_exec": True},
        {"name": "c", "kind": "record", "to": "alarms"},
    ]
    assert [made.name for made in make_handlers(settings, load_plugins(), TOOLS)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("pattern", "code", "taken"),
    [
        ("a*", "a", True),
        ("a*", "ab", True),
        ("a*", "ba", False),
        ("*", "", True),
        ("a", "ab", False),
        ("a", "a", True),
    ],
)
def test_matches(pattern, code, taken):
    """An asterisk at the end is any end; elsewhere it is itself."""
    assert matches(pattern, code) is taken


def test_interest():
    """All that is named must fit; what is about no metric doesn't fit any."""
    interest = Interest(frozenset({"one"}), frozenset({EventType.DEAD}), ("a*", "b"))
    assert interest.takes("one", EventType.DEAD, "b")
    assert not interest.takes("two", EventType.DEAD, "b")
    assert not interest.takes("one", EventType.SILENT, "b")
    assert not interest.takes("one", EventType.DEAD, "c")
    assert not interest.takes("one", EventType.DEAD, None)
    assert Interest().takes("any", EventType.DEAD, None)
