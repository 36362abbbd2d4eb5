"""Where a server listens, before it does."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from meterite.cli.listening import Listening, of_gunicorn, of_uvicorn
from meterite.model.errors import SettingsError


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("127.0.0.1", 8000, "http://localhost:8000"),
        ("0.0.0.0", 8001, "http://localhost:8001"),
        ("::", 80, "http://localhost:80"),
        ("::2", 80, "http://[::2]:80"),
        ("meter.example", 80, "http://meter.example:80"),
        ("127.0.0.1", 0, None),
    ],
)
def test_addresses(host, port, address):
    """As a browser on this machine opens it; none where the system chooses the port."""
    assert Listening(host, port).address == address


def test_what_can_be_listened_on():
    """A free port, one of the system's choice, and one whose last server has just gone."""
    Listening("127.0.0.1", 0).check()
    Listening("localhost", 0).check()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        server.listen()
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            with pytest.raises(
                SettingsError, match=rf"127\.0\.0\.1, port {port}, is taken .* --port {port + 1}"
            ):
                Listening("127.0.0.1", port).check()
            Listening("127.0.0.1", port, held=True).check()
            server.close()
            accepted.close()
            assert client.recv(1) == b""
    Listening("127.0.0.1", port).check()


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 300])
def test_what_is_no_address_of_this_machine(host):
    """Told without waiting."""
    with pytest.raises(SettingsError, match="is no address"):
        Listening(host, 8000).check()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["/usr/bin/uvicorn", "app.main:app"], Listening("127.0.0.1", 8000)),
        (["uvicorn", "app.main:app", "--port", "9000", "--host=0.0.0.0"], Listening("0.0.0.0", 9000)),
        (["/x/uvicorn/__main__.py", "--port=9000", "a:b"], Listening("127.0.0.1", 9000)),
        (["uvicorn", "a:b", "--reload"], Listening("127.0.0.1", 8000, held=True)),
        (["uvicorn", "a:b", "--workers", "2"], Listening("127.0.0.1", 8000, held=True)),
        (
            ["uvicorn", "a:b", "--ssl-certfile", "c", "--ssl-keyfile", "k"],
            Listening("127.0.0.1", 8000, "https"),
        ),
        (["uvicorn", "a:b", "--uds", "socket"], None),
        (["uvicorn", "a:b", "--no-such-option"], None),
        (["/usr/bin/gunicorn", "a:b"], None),
        (["-c"], None),
        ([""], None),
    ],
)
def test_what_uvicorn_was_told(argv, told, monkeypatch):
    """As it reads its own command line; of another program, or without a host and a port, nothing."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert of_uvicorn(argv) == told


def test_uvicorns_environment(monkeypatch):
    """Its options may stand there, too."""
    monkeypatch.setenv("UVICORN_PORT", "9001")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert of_uvicorn(["uvicorn", "a:b"]) == Listening("127.0.0.1", 9001, held=True)


def test_what_gunicorn_is_bound_to():
    """The first address, where it is one of TCP."""
    config = SimpleNamespace(address=[("0.0.0.0", 9000), "unix:x"], is_ssl=False)
    assert of_gunicorn(config) == Listening("0.0.0.0", 9000, held=True)
    assert of_gunicorn(SimpleNamespace(address=["unix:x"], is_ssl=False)) is None
