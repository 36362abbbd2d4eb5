"""Calls to receivers: where they may lead, and what a receiver can do to the caller."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from yarl import URL

from events.handlers.receiver import (
    OK,
    answer,
    endless,
    hang_up,
    headers_without_end,
    never,
    receiving,
    stuck,
)
from meterite.events.handler import Refused, Retry
from meterite.events.handlers import net
from meterite.events.handlers.addresses import Reach
from meterite.events.handlers.net import BODY_BYTES_MAX, AddressRefusedError, Caller, Guard, look_up


@asynccontextmanager
async def calling(*, allow_private=True, guard=None, **options):
    caller = Caller(guard or Guard(allow_private=allow_private), connections=4, **options)
    try:
        yield caller
    finally:
        await caller.close()


def names(*answers):
    """A resolver that says the next of ``answers`` each time, the last one for ever; and what it was asked."""
    left = list(answers)
    asked = []

    async def lookup(name):
        asked.append(name)
        return left.pop(0) if len(left) > 1 else left[0]

    return lookup, asked


def post(caller, url, *, body=b"body", timeout_s=5.0, **headers):
    return caller.post(URL(url), body, headers, timeout_s=timeout_s)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 30))


class TestWhereItLeads:
    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "10.0.0.1", "192.168.0.1", "0.0.0.0", "[::1]", "[::]", "[fc00::1]"),
            *("[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "[fe80::1]"),
            *("localhost", "0x7f.0.0.1"),
        ],
    )
    def test_inner_addresses_are_refused(self, host):
        """Whether written as an address or found by the system's resolver."""

        async def scenario():
            async with receiving() as receiver, calling(allow_private=False) as caller:
                with pytest.raises(Refused, match="leads to"):
                    await post(caller, f"http://{host}:{receiver.port}/")
                assert receiver.connections == 0

        run(scenario)

    @pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "0"])
    def test_odd_writings_of_addresses_are_no_urls(self, host):
        async def scenario():
            async with receiving() as receiver, calling(allow_private=True) as caller:
                with pytest.raises(Refused):
                    await post(caller, f"http://{host}:{receiver.port}/")
                assert receiver.connections == 0

        run(scenario)

    @pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
    def test_link_local_is_refused_though_private_is_allowed(self, host):
        async def scenario():
            async with calling(allow_private=True) as caller:
                with pytest.raises(Refused, match="never called"):
                    await post(caller, f"http://{host}/latest/meta-data")

        run(scenario)

    def test_a_name_that_resolves_to_link_local_is_refused(self):
        async def scenario():
            lookup, _ = names(["169.254.169.254"])
            async with calling(allow_private=True, lookup=lookup) as caller:
                with pytest.raises(Refused, match="never called"):
                    await post(caller, "http://metadata.test/")

        run(scenario)

    def test_the_address_checked_is_the_address_called(self):
        """The resolver changes its answer after it was checked: the first holds, the second is never used."""
        judge = {"127.0.0.2": Reach.OPEN, "127.0.0.1": Reach.INNER}

        async def scenario():
            lookup, asked = names(["127.0.0.2"], ["127.0.0.1"])
            guard = Guard(allow_private=False, judge=judge.__getitem__)
            async with (
                receiving(answer(200, headers="Connection: close\r\n"), host="127.0.0.2") as outer,
                receiving(host="127.0.0.1", port=outer.port) as inner,
                calling(guard=guard, lookup=lookup) as caller,
            ):
                url = f"http://rebinding.test:{outer.port}/"
                assert (await post(caller, url)).status == 200
                assert len(asked) == 1
                assert outer.requests[0].headers["host"] == f"rebinding.test:{outer.port}"
                caller._session.connector.clear_dns_cache()
                with pytest.raises(Refused, match="isn't globally routable"):
                    await post(caller, url)
                assert len(asked) == 2
                assert inner.connections == 0

        run(scenario)

    def test_the_last_check_is_at_the_socket(self):
        """Whatever came before it."""
        guard = Guard(allow_private=False)
        info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))
        with pytest.raises(AddressRefusedError):
            guard.socket(info)

    def test_addresses_that_may_not_be_called_are_left_out(self):
        judge = {"127.0.0.1": Reach.OPEN, "127.0.0.2": Reach.INNER, "fe80::1": Reach.NEVER}

        async def scenario():
            lookup, _ = names(["fe80::1", "127.0.0.2", "127.0.0.1"])
            guard = Guard(allow_private=False, judge=judge.__getitem__)
            async with receiving() as receiver, calling(guard=guard, lookup=lookup) as caller:
                assert (await post(caller, f"http://mixed.test:{receiver.port}/")).status == 204

        run(scenario)

    def test_redirects_are_not_followed(self):
        async def scenario():
            async with receiving() as inner:
                location = f"Location: http://127.0.0.1:{inner.port}/inner\r\n"
                for status in (301, 302, 303, 307, 308):
                    async with receiving(answer(status, headers=location)) as outer, calling() as caller:
                        assert (await post(caller, f"http://127.0.0.1:{outer.port}/")).status == status
                assert inner.connections == 0

        run(scenario)

    def test_proxies_of_the_environment_are_not_used(self, monkeypatch, tmp_path):
        async def scenario():
            async with receiving() as proxy, receiving() as receiver:
                for name in ("http_proxy", "https_proxy", "all_proxy"):
                    monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
                    monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
                netrc = tmp_path / "netrc"
                netrc.write_text("machine 127.0.0.1 login a password b\n")
                netrc.chmod(0o600)
                monkeypatch.setenv("NETRC", str(netrc))
                async with calling() as caller:
                    await post(caller, f"http://127.0.0.1:{receiver.port}/")
                assert "authorization" not in receiver.requests[0].headers
                assert proxy.connections == 0

        run(scenario)

    def test_cookies_are_not_kept(self):
        async def scenario():
            async with receiving(answer(200, headers="Set-Cookie: a=b\r\n")) as receiver, calling() as caller:
                for _ in range(2):
                    await post(caller, f"http://localhost:{receiver.port}/")
                assert all("cookie" not in request.headers for request in receiver.requests)

        run(scenario)


class TestTls:
    @pytest.fixture
    def authority(self):
        return trustme.CA()

    @pytest.fixture
    def trust(self, authority):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    def context(self, authority, *hosts):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*hosts).configure_cert(context)
        return context

    def test_the_name_goes_into_tls_and_host_the_address_is_pinned(self, authority, trust):
        async def scenario():
            lookup, asked = names(["127.0.0.1"])
            tls = self.context(authority, "receiver.test")
            async with (
                receiving(tls=tls) as receiver,
                calling(lookup=lookup, tls=trust) as caller,
            ):
                await post(caller, f"https://receiver.test:{receiver.port}/")
                assert receiver.names == ["receiver.test"]
                assert receiver.requests[0].headers["host"] == f"receiver.test:{receiver.port}"
                assert asked == ["receiver.test"]

        run(scenario)

    def test_a_certificate_of_another_name_is_not_taken(self, authority, trust):
        async def scenario():
            lookup, _ = names(["127.0.0.1"])
            tls = self.context(authority, "other.test")
            async with receiving(tls=tls) as receiver, calling(lookup=lookup, tls=trust) as caller:
                with pytest.raises(Retry, match="certificate"):
                    await post(caller, f"https://receiver.test:{receiver.port}/")
                assert receiver.requests == []

        run(scenario)

    def test_nor_one_of_an_unknown_authority(self, authority):
        async def scenario():
            tls = self.context(authority, "localhost")
            async with receiving(tls=tls) as receiver, calling() as caller:
                with pytest.raises(Retry, match="certificate"):
                    await post(caller, f"https://localhost:{receiver.port}/")

        run(scenario)

    def test_plain_http_where_tls_is_expected(self, trust):
        async def scenario():
            async with receiving(OK) as receiver, calling(tls=trust) as caller:
                with pytest.raises(Retry):
                    await post(caller, f"https://localhost:{receiver.port}/", timeout_s=0.3)

        run(scenario)


class TestWhatAReceiverCanDo:
    def test_answers_are_handed_on(self):
        async def scenario():
            replies = answer(429, headers="Retry-After: 7\r\n", body=b"slower"), answer(200)
            async with receiving(*replies) as receiver, calling() as caller:
                reply = await post(caller, f"http://127.0.0.1:{receiver.port}/a?b=c", **{"x-one": "1"})
                assert (reply.status, reply.retry_after, reply.body) == (429, "7", b"slower")
                assert (await post(caller, f"http://127.0.0.1:{receiver.port}/")).status == 200
                first = receiver.requests[0]
                assert (first.method, first.path, first.body) == ("POST", "/a?b=c", b"body")
                assert first.headers["x-one"] == "1"
                assert first.headers["user-agent"] == "Meterite"
                assert receiver.connections == 1, "the connection is used again"

        run(scenario)

    def test_never_answering_is_a_timeout(self):
        async def scenario():
            async with receiving(never) as receiver, calling() as caller:
                with pytest.raises(Retry, match=r"no answer within 0\.1 s"):
                    await post(caller, f"http://127.0.0.1:{receiver.port}/", timeout_s=0.1)
                await receiver.hung_up.wait()

        run(scenario)

    def test_not_even_taking_the_connection_is_a_timeout(self):
        """A full backlog: the handshake is never answered."""

        async def scenario():
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen(0)
                port = listener.getsockname()[1]
                fillers = [socket.socket() for _ in range(4)]
                for filler in fillers:
                    filler.setblocking(False)
                    filler.connect_ex(("127.0.0.1", port))
                async with calling() as caller:
                    with pytest.raises(Retry, match="no answer"):
                        await post(caller, f"http://127.0.0.1:{port}/", timeout_s=0.3)
                for filler in fillers:
                    filler.close()

        run(scenario)

    @pytest.mark.parametrize("status", [200, 500])
    def test_endless_bodies_are_cut_and_the_status_holds(self, status):
        async def scenario():
            async with receiving(endless(status)) as receiver, calling() as caller:
                reply = await post(caller, f"http://127.0.0.1:{receiver.port}/")
                assert reply.status == status
                assert len(reply.body) == BODY_BYTES_MAX
                await receiver.hung_up.wait()

        run(scenario)

    def test_a_body_that_never_ends_is_waited_for_within_bounds(self, monkeypatch):
        monkeypatch.setattr(net, "BODY_S", 0.05)

        async def scenario():
            async with receiving(stuck(200)) as receiver, calling() as caller:
                reply = await post(caller, f"http://127.0.0.1:{receiver.port}/")
                assert (reply.status, reply.body) == (200, b"beginning")
                await receiver.hung_up.wait()

        run(scenario)

    def test_an_answer_late_in_the_timeout_is_not_lost_to_its_body(self):
        """The timeout is shorter than what is allowed for bodies, and the status came: it is no timeout."""

        async def scenario():
            async with receiving(stuck(200)) as receiver, calling() as caller:
                reply = await post(caller, f"http://127.0.0.1:{receiver.port}/", timeout_s=0.3)
                assert reply.status == 200

        run(scenario)

    def test_packed_bodies_are_not_unpacked(self):
        bomb = gzip.compress(b"\0" * 10_000_000)

        async def scenario():
            reply = answer(200, headers="Content-Encoding: gzip\r\n", body=bomb)
            async with receiving(reply) as receiver, calling() as caller:
                got = await post(caller, f"http://127.0.0.1:{receiver.port}/")
                assert len(got.body) <= len(bomb)

        run(scenario)

    @pytest.mark.parametrize(
        "reply", [hang_up, headers_without_end, b"what?\r\n\r\n", b"HTTP/1.1 9 X\r\n\r\n", b"\0" * 100_000]
    )
    def test_what_is_not_http_is_tried_again(self, reply):
        async def scenario():
            async with receiving(reply) as receiver, calling() as caller:
                with pytest.raises(Retry, match="broke off"):
                    await post(caller, f"http://127.0.0.1:{receiver.port}/", timeout_s=2)

        run(scenario)

    def test_nobody_listens(self):
        async def scenario():
            async with receiving() as receiver:
                port = receiver.port
            async with calling() as caller:
                with pytest.raises(Retry, match="no connection: Connection refused"):
                    await post(caller, f"http://127.0.0.1:{port}/")

        run(scenario)

    def test_reasons_show_no_url_and_no_address(self):
        async def scenario():
            async with calling() as caller:
                with pytest.raises(Retry) as caught:
                    await post(caller, "http://user:secret@127.0.0.1:1/hooks/T0KEN")
                assert not any(part in caught.value.reason for part in ("secret", "T0KEN", "127.0.0.1"))

        run(scenario)


class TestLookup:
    def test_a_name_that_is_none(self):
        async def scenario():
            async with calling() as caller:
                with pytest.raises(Retry, match="can't be resolved"):
                    await post(caller, "http://nothing.invalid/")

        run(scenario)

    def test_a_lookup_that_hangs_is_a_timeout_and_asked_once(self):
        asked = []

        async def lookup(name):
            asked.append(name)
            await asyncio.Event().wait()

        async def scenario():
            async with calling(lookup=lookup) as caller:
                for _ in range(3):
                    with pytest.raises(Retry, match="no answer"):
                        await post(caller, "http://slow.test/", timeout_s=0.05)
            assert asked == ["slow.test"]

        run(scenario)

    def test_localhost(self):
        assert "127.0.0.1" in run(lambda: look_up("localhost"))

    def test_a_label_too_long(self):
        with pytest.raises(OSError, match="can't be resolved"):
            run(lambda: look_up("a" * 70 + ".test"))

    def test_whoever_asked_may_be_gone(self, monkeypatch):
        """The answer of a lookup that outlived its loop is dropped."""
        import threading

        go = threading.Event()
        threads = []
        monkeypatch.setattr(net.socket, "getaddrinfo", lambda *_args, **_options: go.wait() and [])
        true_thread = threading.Thread

        def remembered(**options):
            threads.append(true_thread(**options))
            return threads[-1]

        monkeypatch.setattr(net.threading, "Thread", remembered)

        async def scenario():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(look_up("slow.test"), 0.01)

        run(scenario)
        go.set()
        threads[0].join(5)
        assert not threads[0].is_alive()
