"""The setting ``listeners``: nothing of it may be left to chance."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from meterite.listener_setting import parse_listener
from meterite.settings import Settings

GOOD = {"kind": "graphite", "port": 2003, "org": "org_01", "allow": ["127.0.0.0/8", "fd00::/8"]}


def settings(*listeners):
    return Settings(_env_file=None, api_tokens={"sesame": "org_01"}, listeners=json.dumps(listeners))


def refused(*listeners):
    with pytest.raises(ValidationError) as caught:
        settings(*listeners)
    return caught.value.errors()[0]["msg"]


def test_off_by_default():
    """None, unless they are written down."""
    assert Settings(_env_file=None, api_tokens={"sesame": "org_01"}).listeners == ()


def test_what_is_not_said():
    """On the machine itself; a second, and ten for StatsD."""
    graphite, statsd = settings(GOOD, GOOD | {"kind": "statsd", "flush": "1m"}).listeners
    assert (graphite.host, graphite.flush_s, statsd.flush_s) == ("127.0.0.1", 1.0, 60.0)
    assert parse_listener(GOOD | {"kind": "statsd-tcp"}, 1).flush_s == 10.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "carbon"}, "needs a kind"),
        ({"kind": None}, "needs a kind"),
        ({"port": None}, "needs a port"),
        ({"port": 0}, "needs a port"),
        ({"port": "2003"}, "needs a port"),
        ({"port": True}, "needs a port"),
        ({"org": None}, "needs an org"),
        ({"org": "org_02"}, "no token of api_tokens"),
        ({"allow": None}, "needs allow"),
        ({"allow": []}, "needs allow"),
        ({"allow": "127.0.0.0/8"}, "needs allow"),
        (
            {"allow": ["127.0.0.1/8"]},
            "has in allow 127.0.0.1/8, whose host bits are set: write 127.0.0.0/8, or",
        ),
        ({"allow": ["10.0.0.0/8", "fd00::1/8"]}, "has in allow fd00::1/8, whose host bits are set"),
        ({"allow": ["127.0.0.0/8", 7]}, "needs allow"),
        ({"allow": ["localhost"]}, "needs allow"),
        ({"host": "localhost"}, "needs as host"),
        ({"flush": "1ms"}, "needs as flush"),
        ({"flush": "2h"}, "needs as flush"),
        ({"flush": 10}, "needs as flush"),
        ({"alow": []}, "has a field 'alow', which isn't one of"),
    ],
)
def test_mistakes(change, said):
    """Each is told with the number of the listener; there is no default for the org, nor for who may send."""
    message = refused(GOOD, GOOD | change)
    assert said in message
    assert "number 2" in message


def test_no_list():
    """JSON it is, and a list."""
    for text in ('{"kind": "graphite"}', "graphite"):
        with pytest.raises(ValidationError):
            Settings(_env_file=None, api_tokens={"sesame": "org_01"}, listeners=text)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("127.0.0.1", True),
        ("::ffff:127.0.0.1", True),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::1", False),
        ("", False),
        ("name", False),
    ],
)
def test_who_may_send(address, may):
    """Whom a network names; an IPv4 address within an IPv6 one is judged as itself."""
    assert parse_listener(GOOD, 1).allows(address) is may
