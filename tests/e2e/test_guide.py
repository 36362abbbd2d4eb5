"""docs/guide.md is true: its commands are run as they stand, and answer as it says."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from e2e.server import ONE, ROOT
from programs import program

PROGRAMS = ("curl", "gzip", "tee")
ANYTHING = "…"


def examples():
    """Commands with what they answer; indented, a command begins with ``$`` and may go on behind a backslash."""
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    for block in re.findall(r"(?m)^    \$ (.*(?:\n    .*)*)", text):
        lines = [line.removeprefix("    ") for line in block.split("\n")]
        end = next(n for n, line in enumerate(lines) if not line.endswith("\\")) + 1
        yield "\n".join(lines[:end]), "\n".join(lines[end:])


@pytest.fixture
def shell(server, tmp_path):
    for name in PROGRAMS:
        program(name)

    def run(command):
        done = subprocess.run(
            ["/bin/sh", "-ec", command],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "T": f"x-auth-token: {ONE}", "U": server.url},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        return done.stdout.strip()

    return run


def test_the_guides_examples(shell):
    """One after the other, on one server; whatever the guide leaves open may be anything."""
    found = list(examples())
    assert len(found) > 20
    for command, answer in found:
        expected = ".*".join(map(re.escape, answer.split(ANYTHING)))
        said = shell(command)
        assert re.fullmatch(expected, said, re.DOTALL), f"{command}\n{said}\n{answer}"
