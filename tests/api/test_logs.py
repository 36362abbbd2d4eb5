"""The servers' own logs, governed where the app is made."""

from __future__ import annotations

import io
import logging

import pytest
import structlog

from meterite.api.logs import configure_logs, govern_server_logs

ADDRESSES = ("/metric/?x-auth-token=T1&limit=3", "/a?x-auth%2Dtoken=T1&limit=3", "/a?X-Auth-Token=T1&limit=3")


class Records(logging.Handler):
    """What came out."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture
def out():
    """A handler on each of the server's loggers, as uvicorn and gunicorn's worker set them up."""
    handler = Records()
    loggers = [logging.getLogger(name) for name in ("uvicorn.access", "uvicorn.error", "uvicorn.asgi")]
    before = [(one, one.handlers, one.propagate, one.level, one.filters[:]) for one in loggers]
    for one in loggers:
        one.handlers = [handler]
        one.setLevel(1)
    yield handler
    for one, handlers, propagate, level, filters in before:
        one.handlers, one.propagate, one.filters = handlers, propagate, filters
        one.setLevel(level)


def test_the_servers_access_log_is_silent(out):
    """No handler is left, so that servers don't even make the entry; a list that is shared stays as it is."""
    access = logging.getLogger("uvicorn.access")
    shared = access.handlers
    govern_server_logs("x-auth-token")
    assert not access.hasHandlers()
    assert shared == [out]
    access.info('%s - "%s %s"', "127.0.0.1", "GET", ADDRESSES[0])
    assert out.texts == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_elsewhere_are_redacted(out, address):
    """Of WebSockets, and of the scopes that ``--log-level trace`` shows; all else stays."""
    for _ in range(2):  # a second app in one process changes nothing
        govern_server_logs("x-auth-token")
    logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" 403', "127.0.0.1:1", address)
    scope = {"path": "/a", "query_string": address.partition("?")[2].encode()}
    logging.getLogger("uvicorn.asgi").log(5, "%s [%d] Started scope=%s", "127.0.0.1:1", 7, scope)
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    assert len(out.texts) == 3
    assert "T1" not in "".join(out.texts)
    assert all("limit=3" in text for text in out.texts[:2])
    assert out.texts[2] == "Started server process [7]"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_variables(log_format):
    """They hold the request's headers, and so its token."""
    out = io.StringIO()
    configure_logs(log_format, out)

    def fail(headers):
        raise RuntimeError(len(headers))

    try:
        fail({"x-auth-token": "T" * 20})
    except RuntimeError:
        structlog.get_logger("meterite").exception("request failed")
    finally:
        structlog.reset_defaults()
        logging.getLogger("meterite").handlers.clear()
    assert "RuntimeError" in out.getvalue()
    assert "T" * 20 not in out.getvalue()
