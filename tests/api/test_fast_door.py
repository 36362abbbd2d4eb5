"""The fast door against uvicorn's own protocol, both before the same app: whoever asks can't tell them apart."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.house import AT, BASE64, CODES, EXPOSED, GROUP, LAST, LINE, NO_HTTP, PUSH, opened, request, same
from meterite.api.fast_door import FastDoor

# --- What it takes

TAKEN = {
    "metric": PUSH,
    "metric, without a time": request("/metric/W0", b'{"reading": 3}'),
    "metric, other headers": request("/metric/cpu_load", AT, "X-AUTH-TOKEN:token-one", "Accept: */*", "A: "),
    "bearer": request("/metric/W0", AT, "Authorization: Bearer token-one"),
    "token": request("/write", b"W0 value=1", "Authorization: Token token-one", "Connection: Keep-Alive"),
    "its own id": request("/metric/W0", AT, "x-auth-token: token-one", "x-request-id: mine"),
    "labels at hand": request("/metric/cpu_load", b'{"reading":1,"labels":{"host":"a"}}'),
    "a line": LINE,
    "a line without a time": request("/write?db=x&precision=ms", b"cpu load=2i"),
    "a line with labels": request("/write?p=token-one", b"cpu,host=a load=2 1577836800000000000", ""),
    "lines": request(
        "/api/v2/write?bucket=b&precision=s", b"W0 value=1 1577836800\n\nW1 value=2 1577836801\n"
    ),
    "lines of several series": request("/write", b"W0 value=1 1577836800000000000\ncpu,host=a load=2"),
    "a group's metrics": request(GROUP, EXPOSED),
    "all of a group": request(GROUP, EXPOSED, method="PUT"),
    "a group that lost a metric": request(GROUP, b"W0 3\n", method="PUT"),
    "a group that won it again": request(GROUP, EXPOSED + b"W1 1", method="PUT"),
    "a group with escapes": request(GROUP + "%2Fb?x=1&x-auth-token=token-one", b"W0 1\n", ""),
    "a group in base64": request(BASE64, b"W0 4\n"),
    "OpenMetrics": request(
        GROUP, b"W0 5\n# EOF\n", "x-auth-token: token-one", "Content-Type: application/openmetrics-text"
    ),
    "the last one": LAST,
    "the last line": request("/write", b"W0 value=1", "x-auth-token: token-one", "CONNECTION:Close"),
    "the last of a group": request(GROUP, EXPOSED, "x-auth-token: token-one", "Connection: close"),
    "HTTP/1.0": request("/metric/W0", AT, version="1.0"),
    "HTTP/1.0, a line": request("/write", b"W0 value=1", version="1.0"),
    "HTTP/1.0, kept": request(
        GROUP, EXPOSED, "x-auth-token: token-one", "Connection: keep-alive", version="1.0", method="PUT"
    ),
    "a signed 0": request("/metric/W0", b'{"reading":-0.0}'),
}


@pytest.mark.parametrize("name", TAKEN)
def test_it_answers_as_the_app_does(runner, house, name):
    """It answers what it understands itself, in the very bytes that the app would answer."""
    house.asked.clear()
    fast = runner.run(house.ask([TAKEN[name]]))
    assert house.asked == []
    slow = runner.run(house.ask([TAKEN[name]], HttpToolsProtocol))
    assert len(house.asked) == 1
    assert fast[0].startswith((b"HTTP/1.1 200", b"HTTP/1.1 204"))
    assert same(fast) == same(slow)


# --- What it doesn't

LEFT = {
    "PUT": request("/metric/W0", AT, method="PUT"),
    "another place": request("/readings", b'{"metric":"W0","reading":1}'),
    "an action": request("/metric/W0/readings", b"42", "x-auth-token: token-one", "Content-Type: text/plain"),
    "no token": request("/metric/W0", AT, ""),
    "a wrong token": request("/metric/W0", AT, "x-auth-token: token-three"),
    "a wrong token before a right one": request(
        "/write", b"W0 value=1", "x-auth-token: token-three", "Authorization: Token token-one"
    ),
    "another org": request("/metric/W0", AT, "x-auth-token: token-two"),
    "unknown": request("/metric/unknown", AT),
    "escaped": request("/metric/W%30", AT),
    "a fragment": request("/metric/W0#x", AT),
    "not JSON": request("/metric/W0", b'{"reading":'),
    "no reading": request("/metric/W0", b'{"reading":"x"}'),
    "no body": request("/metric/W0", b""),
    "kept and closed": request(
        "/metric/W0", AT, "x-auth-token: token-one", "Connection: keep-alive", "Connection: close"
    ),
    "closed with another word": request("/metric/W0", AT, "x-auth-token: token-one", "Connection: close, TE"),
    "closing, a proxy's word": request(
        "/metric/W0", AT, "x-auth-token: token-one", "Proxy-Connection: close"
    ),
    "HTTP/1.0 without a token": request("/metric/W0", AT, "", version="1.0"),
    "HTTP/1.2": request("/metric/W0", AT, version="1.2"),
    "closing and unknown": request("/metric/unknown", AT, "x-auth-token: token-one", "Connection: close"),
    "expecting": request("/metric/W0", AT, "x-auth-token: token-one", "Expect: 100-continue"),
    "packed": request("/metric/W0", AT, "x-auth-token: token-one", "Content-Encoding: gzip"),
    "two lengths": request("/metric/W0", AT, "x-auth-token: token-one", "Content-Length: 3"),
    "a key": request("/metric/W0", AT, "x-auth-token: token-one", "Idempotency-Key: a"),
    "upgrading": request("/metric/W0", AT, "x-auth-token: token-one", "Connection: Upgrade", "Upgrade: h2c"),
    "chunked": b"POST /metric/W0 HTTP/1.1\r\nx-auth-token: token-one\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(AT), AT),
    "a folded header": request("/metric/W0", AT, "x-auth-token: token-one", "A: b\r\n c"),
    "a header without a name": request("/metric/W0", AT, "x-auth-token: token-one", ": b"),
    "bare line feeds": PUSH.replace(b"\r\n", b"\n"),
    "lines with texts": request("/write", b'W0 value=1,text="x"'),
    "a line that is none": request("/write", b"W0 value=1\nW0 value=\n"),
    "too far ahead": request("/write", b"W0 value=1 1999999999000000000"),
    "another unit": request("/write?precision=ms", b"W0 value=1 1577836800"),
    "a precision that is none": request("/write?precision=d", b"W0 value=1"),
    "another parameter": request("/write?precision=s&precision=ms", b"W0 value=1"),
    "a group's times": request(GROUP, b"W0 1 1577836800000\n"),
    "a series twice": request(GROUP, b"W0 1\nW0 2\n"),
    "a line that isn't exposition": request(GROUP, b"W0\n"),
    "nothing of a group": request(GROUP, b"# EOF", method="PUT"),
    "an exemplar": request(GROUP, b'W0 1 # {a="b"} 1\n# EOF'),
    "a group that is none": request("/metrics/job/a/b", b"W0 1\n"),
    "a group without a job": request("/metrics/job/", b"W0 1\n"),
    "a job with a line feed": request("/metrics/job/a%0Ab", b"W0 1\n"),
    "lines put": request("/write", b"W0 value=1", method="PUT"),
    "large": request("/write", b"W0 value=1\n" * 2000),
    "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", LEFT)
def test_the_rest_is_the_apps(runner, house, name):
    """What it doesn't take, errors and all, is answered as ever, also with a push before and behind."""
    for data in (LEFT[name], PUSH + LEFT[name], LEFT[name] + PUSH, PUSH + LEFT[name] + LINE):
        assert runner.run(house.alike([data]))
    house.asked.clear()
    answer, _ = runner.run(house.ask([LEFT[name]]))
    assert len(house.asked) == 1 or answer.endswith(NO_HTTP)


def test_a_group_is_met_once(runner, house):
    """A new series, and a description that a metric lacked, are the app's to write down; then it knows them."""
    for body in (b'W1{x="new"} 1\n', b"# HELP W1 What it does.\nW1 1\n"):
        for reached in (1, 0):
            house.asked.clear()
            answer, _ = runner.run(house.ask([request(GROUP, body)]))
            assert answer.startswith(b"HTTP/1.1 200")
            assert len(house.asked) == reached


ONES = st.sampled_from([*TAKEN.values(), *LEFT.values()])


@st.composite
def streams(draw):
    """Some requests behind each other, perhaps broken somewhere, in pieces."""
    data = b"".join(draw(st.lists(ONES, min_size=1, max_size=4)))[:2000]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    if draw(st.integers(0, 9)) == 0:
        return [data[n : n + 1] for n in range(len(data))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_any_stream_is_answered_alike(runner, house, pieces):
    """Pipelined, split and malformed requests: the same bytes, and the same end."""
    assert runner.run(house.alike(pieces))


def test_both_write_the_same(runner, tmp_path):
    """What was pushed is read back alike, whichever door it came through."""

    async def written(name, protocol):
        (tmp_path / name).mkdir()
        async with opened(tmp_path / name) as house:
            for data in TAKEN.values():
                await house.ask([data], protocol)
            return [await house.readings(code) for code in CODES]

    assert runner.run(written("fast", FastDoor)) == runner.run(written("slow", HttpToolsProtocol))
