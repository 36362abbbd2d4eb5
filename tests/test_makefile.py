"""What ``make`` installs, and when: told by programs that only write down how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
if [ "$2" = venv ]; then
    for name in python pip meterite; do cp "$0" "$3/bin/$name" || exit 1; done
fi
"""
SERVICE = ["requirements.txt", "requirements/build.txt", "pyproject.toml", "setup.py"]
DEV = "requirements/dev.txt"


@pytest.fixture
def clone(tmp_path):
    """A directory with what the Makefile looks at, and a Python that makes environments of nothing."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in [*SERVICE, DEV]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    stub(tmp_path / "system-python")
    return tmp_path


def stub(path):
    path.write_text(STUB)
    path.chmod(0o755)


def called_by(clone, target):
    """The calls that it makes, in their order."""
    calls = clone / "calls"
    calls.write_text("")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--silent", f"PYTHON={clone}/system-python", "PORT=8001", target]
    subprocess.run(command, cwd=clone, env=plain, check=True, timeout=60)
    return calls.read_text().splitlines()


def test_to_run_it_takes_what_the_service_needs(clone):
    """Once; what tests and checks need comes on top when they are asked for, also where that is all that changed."""
    first = called_by(clone, "run")
    assert first[0] == "system-python -m venv .venv"
    assert "requirements.txt -r requirements/build.txt" in first[1]
    assert not any(DEV in call for call in first)
    assert first[-1] == "meterite serve --port 8001"
    assert called_by(clone, "run") == first[-1:]
    (dev,) = called_by(clone, "setup")
    assert dev.endswith(f"--require-hashes -r {DEV}")
    assert called_by(clone, "setup") == []
    assert called_by(clone, "run") == first[-1:]


def test_tests_first(clone):
    """From nothing they bring the service's, too, before their own."""
    calls = called_by(clone, "setup")
    assert [DEV in call for call in calls] == [False] * (len(calls) - 1) + [True]
    assert called_by(clone, "run") == ["meterite serve --port 8001"]


@pytest.mark.parametrize("name", SERVICE)
def test_what_changed_is_installed_anew(clone, name):
    """With what lies on top."""
    called_by(clone, "setup")
    stamp = clone / ".venv/.meterite-setup"
    os.utime(clone / name, (stamp.stat().st_mtime + 60,) * 2)
    calls = called_by(clone, "setup")
    assert DEV in calls[-1]
    assert any("requirements/build.txt" in call for call in calls)
    assert not any("venv .venv" in call for call in calls)


def test_an_environment_without_pip_is_made_anew(clone):
    """As one is left where the system's Python can't bring pip (Debian without python3-venv), until it can."""
    stub(clone / ".venv/bin/python")
    assert called_by(clone, "run")[0] == "system-python -m venv .venv"
