"""``meterite plugins``, and commands of plug-ins, as somebody types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HELLO = """
from meterite.events.hooks import hookimpl

@hookimpl
def meterite_register_cli(cli):
    @cli.command()
    def hello():
        print("hello from a plug-in")

    @cli.command()
    def version():
        print("stolen")
"""
BROKEN = "raise SystemExit('no\\nluck')"


@pytest.fixture
def place(tmp_path):
    """A directory to work in, with a directory of plug-ins."""
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "hello.py").write_text(HELLO)
    return tmp_path


def meterite(place, *arguments, **env):
    settings = {"PLUGINS_DIR": str(place / "plugins"), "PYTHONPATH": str(ROOT / "src")} | env
    known = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", "from meterite.cli.main import main; main()", *arguments],
        cwd=place,
        env=known | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_list(place):
    """What was found, from where, and what failed to load and why; no token is needed for it."""
    (place / "plugins" / "broken.py").write_text(BROKEN)
    done = meterite(place, "plugins", PLUGINS="no.such.thing")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {"meterite.log", "meterite.webhook", "hello", "broken", "no.such.thing"} <= set(rows)
    assert "kind webhook" in rows["meterite.webhook"]
    assert rows["meterite.webhook"].rstrip().endswith("loaded")
    assert str(place / "plugins" / "hello.py") in rows["hello"]
    assert "register_cli" in rows["hello"]
    assert rows["broken"].rstrip().endswith("failed: SystemExit: no luck")
    assert "failed: ModuleNotFoundError: No module named 'no'" in rows["no.such.thing"]


def test_what_a_kind_lacks(place):
    """It is loaded and could not be used: the list says what is needed, and how to get it."""
    (place / "plugins" / "bare.py").write_text(
        "import sys\nsys.modules['apprise'] = None\n"
    )  # as if not installed
    done = meterite(place, "plugins")
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("meterite.apprise ")]
    assert row.rstrip().endswith("loaded; lacks Apprise: pip install 'apprise>=2'")


def test_a_directory_that_cannot_be_used(place):
    """One line, exit status 2."""
    (place / "plugins").chmod(0o777)
    done = meterite(place, "plugins")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("meterite: plugins_dir can't be used: ")
    assert done.stderr.count("\n") == 1


def test_a_command_of_a_plugin(place):
    """It is there, and in the help; one that fails costs a line."""
    (place / "plugins" / "broken.py").write_text(BROKEN)
    done = meterite(place, "hello")
    assert (done.returncode, done.stdout) == (0, "hello from a plug-in\n")
    assert done.stderr.startswith("meterite: the plug-in broken (")
    assert done.stderr.endswith("failed: SystemExit: no luck\n")
    assert "hello" in meterite(place, "--help").stdout


def test_commands_of_ours_load_no_plugin(place):
    """Nor can a plug-in take their place."""
    (place / "plugins" / "broken.py").write_text(BROKEN)
    done = meterite(place, "version")
    assert (done.returncode, done.stderr) == (0, "")
    assert "stolen" not in done.stdout


def test_a_plugin_that_fails_at_its_commands(place):
    """The others' commands are there."""
    text = HELLO.replace("    @cli.command()\n    def hello", "    1 / 0\n\n    def hello")
    (place / "plugins" / "zero.py").write_text(text)
    done = meterite(place, "hello")
    assert (done.returncode, done.stdout) == (0, "hello from a plug-in\n")
    assert "the plug-in zero (" in done.stderr
    assert "ZeroDivisionError" in done.stderr
