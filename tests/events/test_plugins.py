"""What is found, what is loaded, and what is told of the rest."""

from __future__ import annotations

import inspect
import os
import re
import sys
import textwrap
from pathlib import Path

import pytest

from meterite.events import plugins as module
from meterite.events.hooks import HOOKS_VERSION, Hooks
from meterite.events.plugins import HOOK_NAMES, load_plugins
from meterite.events.plugins_dir import FILE_BYTES_MAX
from meterite.model.errors import SettingsError

GOOD = """
from meterite.events.hooks import hookimpl

@hookimpl
def meterite_handle_event(event):
    print(event)
"""
FOREIGN_UID = 12345


@pytest.fixture(autouse=True)
def no_entry_points(monkeypatch):
    """What happens to be installed beside us plays no part."""
    monkeypatch.setattr(module.importlib.metadata, "entry_points", lambda group: [])


@pytest.fixture
def directory(tmp_path):
    place = tmp_path / "plugins"
    place.mkdir(mode=0o755)
    return place


def put(directory, name, text, mode=0o644):
    file = directory / name
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    file.chmod(mode)
    return file


def loaded(**options):
    """By name: the error, or None."""
    return {found.name: found.error for found in load_plugins(shipped=False, **options).found}


def test_a_file_of_the_directory_is_loaded(directory):
    """By the name of the file; nothing is written beside it; what begins with an underscore isn't a plug-in."""
    put(directory, "mail.py", GOOD)
    put(directory, "_parts.py", "1 / 0")
    put(directory, "notes.txt", "1 / 0")
    put(directory, "not-a-name.py", "1 / 0")
    plugins = load_plugins(directory=directory, shipped=False)
    assert [(found.name, found.hooks) for found in plugins.found] == [("mail", ("meterite_handle_event",))]
    assert [call.plugin for call in plugins.calls("meterite_handle_event")] == ["mail"]
    assert not (directory / "__pycache__").exists()


def test_its_classes_can_be_found_again(directory):
    """A file's module is where pickle and dataclasses look for it."""
    put(
        directory,
        "shapes.py",
        GOOD + "import dataclasses\n@dataclasses.dataclass\nclass Shape:\n    a: 'int'\n",
    )
    assert loaded(directory=directory) == {"shapes": None}
    assert sys.modules["meterite_plugins_dir.shapes"].Shape(1).a == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise BaseException('a\\nb\\x1b[2J')", "BaseException: a b [2J"),
        ("def f(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("x = 1", "ValueError: it implements no hook; is @hookimpl missing?"),
        (GOOD.replace("handle", "handel"), "ValueError: there is no hook meterite_handel_event"),
        (
            GOOD.replace("@hookimpl", "@hookimpl(wrapper=True)").replace("print(event)", "yield"),
            "can't be a wrapper",
        ),
        (GOOD.replace("def meterite_handle", "async def meterite_filter"), "can't be a coroutine function"),
        (GOOD.replace("(event)", "(evnt)", 1), "PluginValidationError: "),
        ("\0", "source code string cannot contain null bytes"),
        ("x = '" + "é" * FILE_BYTES_MAX + "'", "UnsafeFileError: the file is larger than a plug-in may be"),
    ],
)
def test_a_broken_plugin_stops_nobody(directory, text, error):
    """It is in the report with its reason in one line, the others are loaded; strict_plugins stops at it."""
    put(directory, "broken.py", text)
    put(directory, "good.py", GOOD)
    report = loaded(directory=directory)
    assert error in report["broken"]
    assert "\n" not in report["broken"]
    assert report["good"] is None
    with pytest.raises(SettingsError, match=r"^strict_plugins: broken \(.*broken\.py\) can't be loaded: "):
        loaded(directory=directory, strict=True)


def test_ctrl_c_while_loading_is_the_operators(directory):
    """KeyboardInterrupt is no plug-in's."""
    put(directory, "slow.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        loaded(directory=directory)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_change_is_not_run(directory, mode):
    """Writable by the group or by everybody: refused; the others are loaded."""
    put(directory, "open.py", "import os; os.environ['PWNED'] = '1'", mode)
    put(directory, "good.py", GOOD)
    report = loaded(directory=directory)
    assert report == {
        "good": None,
        "open": "UnsafeFileError: others may write to the file; take that away with chmod go-w",
    }
    assert "PWNED" not in os.environ


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_directory_that_others_may_change_stops_the_start(directory, mode):
    """It is a setting that can't be used: one line that names it."""
    put(directory, "good.py", GOOD)
    directory.chmod(mode)
    with pytest.raises(
        SettingsError, match=r"^plugins_dir can't be used: .*others may write to the directory"
    ):
        loaded(directory=directory)


def test_a_directory_in_one_that_everybody_may_change(tmp_path):
    """Who may write above it may put another in its place, but for directories such as /tmp."""
    above = tmp_path / "above"
    (above / "plugins").mkdir(parents=True)
    above.chmod(0o777)
    with pytest.raises(SettingsError, match=r"^plugins_dir can't be used: .*everybody may write to .*above"):
        loaded(directory=above / "plugins")
    above.chmod(0o1777)
    assert loaded(directory=above / "plugins") == {}


def test_a_directory_that_is_none(tmp_path):
    """Missing, or a file."""
    for place in (tmp_path / "missing", put(tmp_path, "file", "")):
        with pytest.raises(SettingsError, match=r"^plugins_dir can't be used: "):
            loaded(directory=place)


def test_a_link_is_judged_by_where_it_leads(directory, tmp_path):
    """The file and the directory at its end are checked; a link to a good one is good."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    put(elsewhere, "target.py", GOOD)
    (directory / "link.py").symlink_to(elsewhere / "target.py")
    assert loaded(directory=directory) == {"link": None}
    elsewhere.chmod(0o777)
    assert "others may write to the directory" in loaded(directory=directory)["link"]
    elsewhere.chmod(0o755)
    (elsewhere / "target.py").chmod(0o666)
    assert "others may write to the file" in loaded(directory=directory)["link"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_belongs_to_another_user(directory):
    """Neither his file nor his directory is run."""
    file = put(directory, "theirs.py", GOOD)
    os.chown(file, FOREIGN_UID, -1)
    assert loaded(directory=directory) == {"theirs": "UnsafeFileError: the file belongs to another user"}
    os.chown(directory, FOREIGN_UID, -1)
    with pytest.raises(SettingsError, match="the directory belongs to another user"):
        loaded(directory=directory)


def test_a_pipe_is_no_plugin(directory):
    """It isn't waited for either."""
    os.mkfifo(directory / "pipe.py", 0o600)
    assert loaded(directory=directory) == {"pipe": "UnsafeFileError: it is no file"}


def test_dotted_paths(directory, monkeypatch):
    """A module, a thing in it with a colon or a dot; a class is instantiated."""
    put(
        directory,
        "acme_alerts.py",
        GOOD + "\nclass Mail:\n    @hookimpl\n    def meterite_startup(self): ...\n",
    )
    monkeypatch.syspath_prepend(directory)
    plugins = load_plugins(
        ["acme_alerts", "acme_alerts:Mail", "acme_alerts.Mail", "acme_none"], shipped=False
    )
    assert {found.name: found.error for found in plugins.found} == {
        "acme_alerts": None,
        "acme_alerts:Mail": None,
        "acme_alerts.Mail": None,
        "acme_none": "ModuleNotFoundError: No module named 'acme_none'",
    }
    assert [call.run() for call in plugins.calls("meterite_startup")] == [None, None]


class Distribution:
    name, version = "acme", "1.2"


class Entry:
    """As importlib.metadata has it."""

    def __init__(self, name, plugin):
        self.name, self.dist, self._plugin = name, Distribution(), plugin

    def load(self):
        if isinstance(self._plugin, Exception):
            raise self._plugin
        return self._plugin


class Plugin:
    """Takes one of two arguments."""

    @module.pluggy.HookimplMarker("meterite")
    def meterite_filter_event(self, handler):
        return handler == "ops"


def test_entry_points(monkeypatch):
    """All of the group ``meterite``, told with their distribution; names are taken once, and plug-ins, too."""
    plugin = Plugin()
    entries = [
        Entry("mail", plugin),
        Entry("mail", Plugin()),
        Entry("again", plugin),
        Entry("bad", ImportError("no")),
        Entry("none", None),
    ]
    monkeypatch.setattr(
        module.importlib.metadata, "entry_points", lambda group: entries if group == "meterite" else []
    )
    plugins = load_plugins(shipped=False)
    assert {found.origin for found in plugins.found} == {"acme 1.2"}
    assert [(found.name, found.error) for found in plugins.found[:4]] == [
        ("mail", None),
        ("mail", "another plug-in has this name"),
        ("again", "it was loaded already, under another name"),
        ("bad", "ImportError: no"),
    ]
    assert plugins.found[4].error
    (call,) = plugins.calls("meterite_filter_event")
    assert (call.run(event=None, handler="ops"), call.run(event=None, handler="x")) == (True, False)


def test_async_implementations_are_told_apart(directory):
    """A coroutine function runs in a loop, a function in a thread."""
    put(directory, "later.py", GOOD.replace("def ", "async def "))
    put(directory, "now.py", GOOD)
    plugins = load_plugins(directory=directory, shipped=False)
    assert {call.plugin: call.is_async for call in plugins.calls("meterite_handle_event")} == {
        "later": True,
        "now": False,
    }


def test_what_is_shipped_comes_through_the_same_door():
    """All handlers of ours are plug-ins that give kinds, and none of them fails."""
    plugins = load_plugins()
    assert plugins.failed == []
    assert {found.hooks for found in plugins.found} == {("meterite_handler_kinds",)}


def test_each_hook_is_described():
    """A hook that the page doesn't name with its arguments, or without a docstring, fails; so does one too many."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(meterite_\w+)\(([\w, ]*)\)`", page, re.MULTILINE)
    hooks = {name: list(inspect.signature(getattr(Hooks, name)).parameters)[1:] for name in HOOK_NAMES}
    assert {name: arguments.split(", ") if arguments else [] for name, arguments in described} == hooks
    assert all(getattr(Hooks, name).__doc__ for name in HOOK_NAMES)
    assert f"`HOOKS_VERSION` is {HOOKS_VERSION}:" in page
