"""Who asks, by which credential."""

from __future__ import annotations

import base64

import pytest

from meterite.api.credentials import (
    COOKIE_SECONDS,
    CookiePolicy,
    CookieSigner,
    Credential,
    Tokens,
    find_token,
    host_name,
    may_act,
)

NAME = "X-Auth-Token"
TOKENS = {"123456": "org_01", "567890": "org_02", "tök:en": "org_01"}


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


def found(headers=(), query=b""):
    credential = find_token([(k.encode(), v) for k, v in headers], query, NAME)
    return credential and (credential.kind, credential.value)


def test_tokens_are_looked_up():
    """A token stands for its org, bytes or text; anything else for none."""
    tokens = Tokens(TOKENS)
    assert tokens.org_of("123456") == tokens.org_of("tök:en".encode()) == "org_01"
    assert tokens.org_of(b"567890") == "org_02"
    assert tokens.org_of(b"") is tokens.org_of("\ud800") is tokens.org_of(b"12345") is None


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ([("x-auth-token", b" T ")], b"", ("header", b"T")),
        ([("authorization", b"Bearer T")], b"", ("bearer", b"T")),
        ([("authorization", b"bearer  T")], b"", ("bearer", b"T")),
        ([("authorization", b"Token T")], b"", ("token", b"T")),
        ([("authorization", basic("anyone:T:x"))], b"", ("basic", b"T:x")),
        ([], b"a=1&x-auth-token=T%2B+1", ("query", b"T+ 1")),
        ([], b"X-AUTH-TOKEN=T", ("query", b"T")),
        ([("cookie", b'a=1; x-auth-token="T"')], b"", ("cookie", b"T")),
        ([], b"", None),
        ([("x-auth-token", b" "), ("authorization", b"Bearer "), ("cookie", b"x-auth-token=")], b"x-auth-token=", None),
        ([("authorization", basic("T:"))], b"", None),
        ([("authorization", b"Digest T")], b"", None),
        ([("x-auth-token", b""), ("authorization", b"Bearer T")], b"", ("bearer", b"T")),
        ([("authorization", b"Token B"), ("x-auth-token", b"A")], b"x-auth-token=C", ("header", b"A")),
        ([("authorization", b"Token B"), ("cookie", b"x-auth-token=D")], b"x-auth-token=C", ("token", b"B")),
        ([("cookie", b"x-auth-token=D")], b"x-auth-token=C", ("query", b"C")),
    ],
)  # fmt: skip
def test_the_first_present_decides(headers, query, expected):
    """Header, Authorization, query, cookie, in this order; an empty credential is none."""
    assert found(headers, query) == expected


def test_a_password_in_the_address():
    """Where a protocol's clients put it there, it is the token; elsewhere the parameter is any other."""
    query = b"db=x&u=me&p=T%2B1"
    credential = find_token([], query, NAME, b"p")
    assert credential is not None
    assert (credential.kind, credential.value) == ("query", b"T+1")
    assert find_token([], query, NAME) is None
    header = find_token([(b"x-auth-token", b"A")], query, NAME, b"p")
    assert header is not None
    assert header.value == b"A"


@pytest.mark.parametrize("value", [b"Basic ###", b"Basic " + base64.b64encode(b"no colon")])
def test_an_unreadable_basic_is_a_wrong_one(value):
    """It is present, so nothing after it is looked at, and no token is like it."""
    kind, token = found([("authorization", value)], b"x-auth-token=123456")
    assert kind == "basic"
    assert Tokens(TOKENS).org_of(token) is None


def test_a_credential_does_not_show_its_value():
    """Its repr may end in a log."""
    assert "123456" not in repr(Credential("query", b"123456"))


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_cookie_is_good_until_it_expires(clock):
    """12 hours, in every worker that has the secret; it shows no token."""
    value = CookieSigner([b"s"], TOKENS, now=clock).issue("org_01", b"123456").encode()
    assert b"123456" not in value
    other = CookieSigner([b"s"], TOKENS, now=clock)
    clock.now += COOKIE_SECONDS - 1
    assert other.read(value) == "org_01"
    clock.now += 1
    assert other.read(value) is None


def test_a_cookie_dies_with_its_token_and_its_secret(clock):
    """A token that is gone or names another org, and a secret that is gone, take the cookie along."""
    value = CookieSigner([b"old"], TOKENS, now=clock).issue("org_01", b"123456").encode()
    assert CookieSigner([b"new", b"old"], TOKENS, now=clock).read(value) == "org_01"
    assert CookieSigner([b"new"], TOKENS, now=clock).read(value) is None
    assert CookieSigner([b"old"], {"567890": "org_02", "x": "org_01"}, now=clock).read(value) is None
    assert CookieSigner([b"old"], {"123456": "org_02"}, now=clock).read(value) is None


def test_a_changed_cookie_is_none(clock):
    """Every byte is covered by the signature; nonsense is no error."""
    signer = CookieSigner([b"s"], TOKENS, now=clock)
    value = signer.issue("org_01", b"123456").encode()
    for at in range(len(value)):
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        assert signer.read(changed) is None
    for nonsense in (b"", b"v1", b"v1..", b"v1.a.b", b"\xff.\xff.\xff", b"v1.\xff.\xff"):
        assert signer.read(nonsense) is None


@pytest.mark.parametrize(
    ("host", "shared"),
    [
        ("localtest.me:8000", True),
        ("a.b.LOCALTEST.me", True),
        ("localtest.me.", True),
        ("evil-localtest.me", False),
        ("localtest.me.evil.com", False),
        ("127.0.0.1:8000", False),
        ("[::1]:8000", False),
        ("[", False),
        ("", False),
    ],
)
def test_the_cookies_domain(host, shared):
    """It is shared where the host is cookie_domain or below, else it is the host's alone."""
    header = CookiePolicy("x", "localtest.me").set_header("v", host=host, https=False)
    assert ("; Domain=localtest.me" in header) is shared
    assert "; HttpOnly; SameSite=Lax" in header
    assert "Secure" not in header


def test_the_cookie_is_secure_on_https_and_can_be_taken_back():
    """Taking it away names the domain it was set with, and none."""
    policy = CookiePolicy("x", "localtest.me")
    assert "; Secure" in policy.set_header("v", host="h", https=True)
    gone = policy.clear_headers(host="localtest.me", https=True)
    assert [("Domain=localtest.me" in each) for each in gone] == [False, True]
    assert all("Max-Age=0" in each for each in gone)
    assert len(policy.clear_headers(host="other", https=False)) == 1


@pytest.mark.parametrize(
    ("kind", "method", "headers", "allowed"),
    [
        ("header", "POST", {"sec-fetch-site": "cross-site"}, True),
        ("query", "DELETE", {}, True),
        ("cookie", "GET", {"sec-fetch-site": "cross-site"}, True),
        ("cookie", "POST", {"sec-fetch-site": "same-origin"}, True),
        ("cookie", "POST", {"sec-fetch-site": "same-site"}, False),
        ("basic", "POST", {"sec-fetch-site": "none"}, False),
        (
            "cookie",
            "POST",
            {"sec-fetch-site": "cross-site", "origin": "http://h:8000", "host": "h:8000"},
            False,
        ),
        ("cookie", "POST", {"origin": "http://h:8000", "host": "H:8000"}, True),
        ("cookie", "POST", {"origin": "http://h", "host": "h:80"}, True),
        ("cookie", "POST", {"origin": "https://h", "host": "h:80"}, False),
        ("cookie", "POST", {"origin": "http://h:8001", "host": "h:8000"}, False),
        ("basic", "POST", {"origin": "null", "host": "h"}, False),
        ("basic", "PUT", {"origin": "http://evil", "host": "h"}, False),
        ("basic", "POST", {}, True),
        ("cookie", "POST", {"host": "h"}, False),
    ],
)
def test_who_may_change_things(kind, method, headers, allowed):
    """What a browser sends by itself counts only from our own pages."""
    raw = [(k.encode(), v.encode()) for k, v in headers.items()]
    assert may_act(kind, method, raw) is allowed


def test_host_names():
    """The port and a last dot don't belong to the name."""
    assert host_name("Local.Test.:80") == "local.test"
