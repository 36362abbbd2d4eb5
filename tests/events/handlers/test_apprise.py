"""Apprise: the library itself, telling a receiver on loopback."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import ValidationError

from events.handlers.samples import sample
from meterite.events.handler import Retry
from meterite.events.handlers.apprise import AppriseHandler, AppriseOptions, meterite_handler_kinds
from meterite.model.event import EventType

pytestmark = pytest.mark.filterwarnings(
    "ignore:'imghdr' is deprecated:DeprecationWarning"
)  # Apprise's, of 3.11


def made(url, **others):
    return AppriseHandler(
        AppriseOptions.model_validate({"name": "mail", "kind": "apprise", "url": url, **others})
    )


@contextmanager
def receiving(status=200, headers=()):
    """What is told, as parsed JSON."""
    told = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("type_", "urgency"),
    [
        (EventType.ABOVE_MAX, "warning"),
        (EventType.SILENT, "warning"),
        (EventType.DEAD, "warning"),
        (EventType.CLEARED, "success"),
        (EventType.RESUMED, "success"),
        (EventType.CHANGED, "info"),
    ],
)
def test_a_sentence_and_its_urgency(type_, urgency):
    with receiving() as (url, told):
        made(url).handle(sample(type_))
    [message] = told
    assert message["type"] == urgency
    assert "Meter 1 (M1)" in message["message"]
    assert message["title"]


def test_what_is_said():
    with receiving() as (url, told):
        made(url).handle(sample())
    [message] = told
    assert message["title"] == "Meter 1 (M1) is above its maximum of 100 kWh: 101.5 kWh"
    assert "limits: 0 to 100" in message["message"]


@pytest.mark.parametrize("status", [400, 500])
def test_a_failure_is_tried_again(status):
    with receiving(status) as (url, _), pytest.raises(Retry, match="could not deliver"):
        made(url).handle(sample())


def test_nobody_listens():
    with pytest.raises(Retry):
        made("json://127.0.0.1:1/").handle(sample())


def test_redirects_are_not_followed():
    with receiving() as (inner, told):
        location = inner.replace("json://", "http://")
        with receiving(307, [("location", location)]) as (url, _), pytest.raises(Retry):
            made(url).handle(sample())
    assert told == []


def test_it_starts_no_threads_of_its_own():
    """A thread that hangs would keep the program from ending."""
    before = threading.active_count()
    with pytest.raises(Retry):
        made("json://127.0.0.1:1/").handle(sample())
    assert threading.active_count() == before


@pytest.mark.parametrize("url", ["nothing", "nosuch://service", "mailto://", "s3cr3t"])
def test_a_url_that_is_no_service(url):
    with pytest.raises(ValueError, match="no service of Apprise's") as caught:
        made(url)
    assert url not in str(caught.value)


def test_without_the_extra_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ValueError, match=r"^needs Apprise: pip install 'apprise>=2'$"):
        made("json://127.0.0.1/")
    assert meterite_handler_kinds()["apprise"].lacks == "Apprise: pip install 'apprise>=2'"


def test_with_the_extra_nothing_is_lacking():
    assert meterite_handler_kinds()["apprise"].lacks == ""


@pytest.mark.parametrize("others", [{"url": ""}, {"concurrency": 2}, {"urls": []}])
def test_what_cannot_be_used(others):
    with pytest.raises(ValidationError):
        made(**{"url": "json://127.0.0.1/", **others})


def test_the_url_is_not_shown():
    options = AppriseOptions(name="mail", kind="apprise", url="json://user:s3cr3t@127.0.0.1/")
    assert "s3cr3t" not in repr(options)
