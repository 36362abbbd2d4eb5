"""Webhooks, checked by Standard Webhooks' own library, and receivers that behave badly."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager
from types import MappingProxyType
from urllib.parse import unquote

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from events.handlers.receiver import OK, answer, endless, hang_up, never, receiving, stuck
from events.handlers.samples import sample
from meterite.events.handler import Refused, Retry
from meterite.events.handlers.webhook import Webhook, WebhookOptions, encode_binary, parse_secret, sign
from meterite.model.event import Event, EventType

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
NOW_S = 1_700_000_100.0


def options(url="https://example.com/hook", **others):
    return WebhookOptions.model_validate({"name": "ops", "kind": "webhook", "url": url, **others})


@asynccontextmanager
async def hooked(receiver, *, clock=time.time, **others):
    url = f"http://127.0.0.1:{receiver.port}/hook"
    handler = Webhook(options(url, allow_private=True, **others), clock=clock)
    await handler.open()
    try:
        yield handler
    finally:
        await handler.close()


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 30))


def told(*answers, events=1, outcome=None, **others):
    """Tell a receiver so many times; its requests."""

    async def scenario():
        async with receiving(*answers) as receiver, hooked(receiver, **others) as handler:
            for _ in range(events):
                await _expect(handler.handle(sample()), outcome)
            return receiver.requests

    return run(scenario)


async def _expect(call, outcome):
    if outcome is None:
        await call
        return
    with pytest.raises(outcome[0], match=outcome[1]):
        await call


class TestSignature:
    def test_standard_webhooks_takes_it(self):
        [request] = told(secret=NEW)
        verified = standardwebhooks.Webhook(NEW).verify(request.body, request.headers)
        assert verified == json.loads(json.dumps(sample().to_dict()))

    @pytest.mark.parametrize("secret", [OLD, NEW])
    def test_while_secrets_change_either_is_good(self, secret):
        [request] = told(secret=[NEW, OLD])
        standardwebhooks.Webhook(secret).verify(request.body, request.headers)
        assert request.headers["webhook-signature"].count("v1,") == 2

    def test_another_secret_is_not(self):
        [request] = told(secret=NEW)
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(OLD).verify(request.body, request.headers)

    def test_a_changed_body_is_not(self):
        [request] = told(secret=NEW)
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(NEW).verify(request.body + b" ", request.headers)

    def test_the_specifications_own_example(self):
        """From the tests of its libraries."""
        key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        signature = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_without_a_secret_there_is_none(self):
        [request] = told()
        assert "webhook-signature" not in request.headers
        assert request.headers["webhook-id"] == sample().id

    @pytest.mark.parametrize("mode", ["structured", "binary"])
    def test_every_try_sends_the_same_body_and_id_and_its_own_time(self, mode):
        times = iter((NOW_S, NOW_S, NOW_S + 60, NOW_S + 60))
        requests = told(
            answer(500),
            events=2,
            outcome=(Retry, "500"),
            secret=NEW,
            mode=mode,
            clock=lambda: next(times),
        )
        first, second = requests
        assert first.body == second.body
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert [request.headers["webhook-timestamp"] for request in requests] == ["1700000100", "1700000160"]
        assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


class TestCloudEvents:
    def test_structured(self):
        [request] = told()
        assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        body = json.loads(request.body)
        assert body == sample().to_dict()
        assert (body["specversion"], body["id"]) == ("1.0", request.headers["webhook-id"])
        assert not any(name.startswith("ce-") for name in request.headers)

    def test_binary(self):
        [request] = told(mode="binary", secret=NEW)
        event = sample()
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.body) == event.data
        assert {name: value for name, value in request.headers.items() if name.startswith("ce-")} == {
            "ce-specversion": "1.0",
            "ce-id": event.id,
            "ce-type": event.type,
            "ce-source": event.source,
            "ce-subject": event.subject,
            "ce-time": event.time,
            "ce-org": event.org,
        }
        standardwebhooks.Webhook(NEW).verify(request.body, request.headers)

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
    def test_any_text_goes_through_a_header_and_back(self, text):
        event = Event(id="1", type="t", source="/", subject=text, time="", org=text, data={})
        _, headers = encode_binary(event)
        for name in ("ce-subject", "ce-org"):
            assert all(0x20 < ord(letter) < 0x7F and letter != '"' for letter in headers[name])
            assert unquote(headers[name]) == text

    def test_data_may_be_any_mapping(self):
        data, _ = encode_binary(sample(data=MappingProxyType({"host": "a"})))
        assert json.loads(data) == {"host": "a"}

    @pytest.mark.parametrize("type_", list(EventType))
    def test_every_type(self, type_):
        async def scenario():
            async with receiving() as receiver, hooked(receiver) as handler:
                await handler.handle(sample(type_))
                assert json.loads(receiver.requests[0].body)["type"] == type_

        run(scenario)


class TestReceivers:
    def test_own_headers_go_with_it(self):
        [request] = told(headers={"Authorization": "Bearer abc"})
        assert request.headers["authorization"] == "Bearer abc"

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [
            (OK, None),
            (answer(500), (Retry, "500 Internal Server Error")),
            (answer(503, headers="Retry-After: 3\r\n"), (Retry, "503")),
            (answer(429), (Retry, "429")),
            (answer(410), (Refused, "410 Gone")),
            (answer(401), (Refused, "401")),
            (answer(302, headers="Location: http://10.0.0.1/\r\n"), (Refused, "302.*redirects")),
            (never, (Retry, "no answer within")),
            (stuck(200), None),
            (stuck(500), (Retry, "500")),
            (endless(200), None),
            (endless(500), (Retry, "500")),
            (endless(410), (Refused, "410")),
            (hang_up, (Retry, "broke off")),
        ],
    )
    def test_how_it_ends(self, reply, outcome):
        assert len(told(reply, outcome=outcome, timeout=0.5)) == 1

    @pytest.mark.parametrize("value", ["30", "Tue, 14 Nov 2023 22:15:30 GMT"])
    def test_retry_after_reaches_the_dispatcher(self, value):
        async def scenario():
            reply = answer(503, headers=f"Retry-After: {value}\r\n")
            async with receiving(reply) as receiver, hooked(receiver, clock=lambda: NOW_S) as handler:
                with pytest.raises(Retry) as caught:
                    await handler.handle(sample())
                assert caught.value.after_s == 30

        run(scenario)

    def test_inner_addresses_are_refused_by_default(self):
        """Where only the resolver can tell: at the call."""

        async def lookup(_name):
            return ["10.0.0.1"]

        async def scenario():
            handler = Webhook(options("https://inner.test/hook"), lookup=lookup)
            await handler.open()
            with pytest.raises(Refused, match="isn't globally routable"):
                await handler.handle(sample())
            await handler.close()

        run(scenario)


class TestOptions:
    @pytest.mark.parametrize(
        ("others", "why"),
        [
            ({"url": ""}, "must be like"),
            ({"url": "example.com/hook"}, "must be like"),
            ({"url": "ftp://example.com/"}, "must be like"),
            ({"url": "http:///hook"}, "must be like"),
            ({"url": "http://example.com:99999/"}, "must be like"),
            ({"url": "http://[::1/"}, "must be like"),
            ({"url": "http://example.com/a b"}, "no spaces"),
            ({"url": "http://example.com/\r\nX: y"}, "no spaces"),
            ({"url": "http://example.com/" + "a" * 2000}, "2000 characters"),
            ({"url": "http://127.0.0.1/"}, "allow_private"),
            ({"url": "http://localhost:80/"}, "allow_private"),
            ({"url": "http://a.LOCALHOST./"}, "allow_private"),
            ({"url": "http://[::ffff:10.0.0.1]/"}, "allow_private"),
            ({"url": "http://169.254.169.254/"}, "never called"),
            ({"url": "http://169.254.169.254/", "allow_private": True}, "never called"),
            ({"url": "http://[fe80::1]/", "allow_private": True}, "never called"),
            ({"secret": ""}, "must be whsec_"),
            ({"secret": "s3cr3t"}, "must be whsec_"),
            ({"secret": "whsec_s3cr3t!"}, "must be whsec_"),
            ({"secret": "whsec_" + base64.b64encode(b"x" * 23).decode()}, "must be whsec_"),
            ({"secret": "whsec_" + base64.b64encode(b"x" * 65).decode()}, "must be whsec_"),
            ({"secret": [NEW] * 9}, "at most 8"),
            ({"mode": "batch"}, "'structured' or 'binary'"),
            ({"headers": {"Host": "s3cr3t"}}, "the call itself sets"),
            ({"headers": {"Webhook-Id": "s3cr3t"}}, "the call itself sets"),
            ({"headers": {"ce-id": "s3cr3t"}}, "the call itself sets"),
            ({"headers": {"a b": "s3cr3t"}}, "the call itself sets"),
            ({"headers": {"x": "s3cr3t\r\ny: z"}}, "control characters"),
            ({"header": {}}, "Extra inputs"),
        ],
    )
    def test_what_cannot_be_used_is_said_and_not_repeated(self, others, why):
        with pytest.raises(ValidationError, match=why) as caught:
            options(**others)
        assert "s3cr3t" not in str(caught.value)

    def test_secrets_are_not_shown(self):
        shown = repr(options("https://example.com/T0KEN", secret=NEW, headers={"x-key": "s3cr3t"}))
        assert not any(secret in shown for secret in (NEW, "s3cr3t", "T0KEN"))

    def test_a_ca_file_that_is_none(self, tmp_path):
        path = tmp_path / "ca.pem"
        path.write_text("nothing")
        with pytest.raises(ValueError, match="ca_file"):
            Webhook(options(ca_file=str(path)))

    def test_unpadded_base64_is_taken_as_the_libraries_do(self):
        assert parse_secret(OLD.rstrip("=")) == b"o" * 24
        assert parse_secret(NEW.rstrip("=")) == b"n" * 32
