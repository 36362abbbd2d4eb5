"""The first start makes its own settings."""

from __future__ import annotations

import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from meterite.cli import first_start
from meterite.cli.listening import Listening
from meterite.model.errors import SettingsError
from meterite.settings import Settings


def test_without_settings_one_is_written_for_its_owner_only(tmp_path):
    """``.env`` has mode 0600, names a database and the token that was answered; no draft stays behind."""
    token = first_start.write_env(tmp_path, {})
    path = tmp_path / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f'api_tokens={{"{token}": "org_01"}}' in path.read_text()
    assert "database_url=" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_settings_that_are_there_are_left_alone(tmp_path):
    """Neither an existing ``.env`` nor tokens in the environment, in any case, let one be written."""
    assert first_start.write_env(tmp_path, {"Api_Tokens": "{}"}) is None
    assert not (tmp_path / ".env").exists()
    (tmp_path / ".env").write_text("mine")
    assert first_start.write_env(tmp_path, {}) is None
    assert (tmp_path / ".env").read_text() == "mine"


def test_a_database_named_in_the_environment_is_not_named_again(tmp_path):
    """The file doesn't repeat what the environment decides."""
    first_start.write_env(tmp_path, {"DATABASE_URL": "sqlite:///x.db"})
    assert "database_url" not in (tmp_path / ".env").read_text()


def test_of_many_at_once_one_writes(tmp_path):
    """Exactly one of 16 simultaneous starts answers a token, and it is the one in the file."""
    with ThreadPoolExecutor(16) as pool:
        tokens = [
            token for token in pool.map(lambda _: first_start.write_env(tmp_path, {}), range(16)) if token
        ]
    assert len(tokens) == 1
    assert tokens[0] in (tmp_path / ".env").read_text()


def test_the_greeting_can_be_pasted():
    """It names the address to open and a curl with the token; none where it can't be known."""
    text = first_start.greeting("t0ken", "http://localhost:8000")
    assert "http://localhost:8000/docs?x-auth-token=t0ken" in text
    assert "curl -H 'x-auth-token: t0ken' http://localhost:8000/metric/M1/readings -d 42\n" in text
    assert "http" not in first_start.greeting("t0ken", None)
    assert "t0ken" in first_start.greeting("t0ken", None)
    assert "curl -H 'key: t0ken'" in first_start.greeting("t0ken", None, "key")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A directory to start in, and an environment without our names."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    return tmp_path


def test_a_port_that_is_taken_leaves_nothing_behind(empty, capsys):
    """Neither a file nor an address of somebody else's server."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SettingsError, match="is taken by another program"):
            first_start.ensure_settings(Listening("127.0.0.1", other.getsockname()[1]))
    assert list(empty.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_the_address_is_this_servers(empty, capsys, monkeypatch):
    """Told once, with the name of the header that the environment sets."""
    monkeypatch.setenv("API_KEY_NAME", "my-key")
    assert first_start.ensure_settings(Listening("127.0.0.1", 1234, held=True))
    said = capsys.readouterr().err
    assert "open   http://localhost:1234/docs?my-key=" in said
    assert not first_start.ensure_settings(Listening("127.0.0.1", 1234))
    assert capsys.readouterr().err == ""


def test_a_directory_that_can_not_be_written_is_a_sentence(empty, monkeypatch):
    """It says what else to do."""

    def no(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(first_start, "_create", no)
    with pytest.raises(SettingsError, match=r"\.env can't be written: Permission denied; set API_TOKENS"):
        first_start.ensure_settings(None)
