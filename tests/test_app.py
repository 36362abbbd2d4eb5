"""How the app comes to be, and how it doesn't."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meterite.app import create_app
from meterite.model.errors import SchemaTooNewError
from meterite.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


def python(code, directory, **environ):
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=kept | {"PYTHONPATH": str(ROOT / "src")} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_describing_needs_no_settings(tmp_path):
    """Neither settings nor a file are made."""
    done = python("import meterite.app; meterite.app.openapi_document()", tmp_path, API_TOKENS="broken")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_first_start_makes_settings(tmp_path):
    """``app`` is made where it is asked for, and is the same one afterwards."""
    done = python("import meterite.app as m; assert m.app is m.app", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".env").exists()


def test_a_bad_setting_is_one_line(tmp_path):
    """It names the setting; no traceback, and no token."""
    done = python("from meterite.app import app", tmp_path, API_TOKENS='{"sesame": ""}')
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "api_tokens" in done.stderr
    assert "sesame" not in done.stderr


class TooNew:
    """A service whose file a newer program wrote."""

    async def open(self):
        raise SchemaTooNewError("schema-too-new", "The file is newer than this program.")


def test_a_file_that_can_not_be_used_is_one_line_to_any_server():
    """The lifespan protocol's failure carries the sentence, not a traceback."""
    app = create_app(Settings(_env_file=None, api_tokens={"t": "o"}), TooNew())
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    with pytest.raises(SchemaTooNewError):
        asyncio.run(app({"type": "lifespan"}, receive, send))
    assert sent == [{"type": "lifespan.startup.failed", "message": "The file is newer than this program."}]
