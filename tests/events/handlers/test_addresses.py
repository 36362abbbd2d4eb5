"""Which addresses may be called: a table, and Python's own opinion as a lower bound."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.events.handlers.addresses import Reach, reach

OPEN = """
8.8.8.8 1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001:81b::200e 2001:200::1 2001:4860:4860::8888
::ffff:8.8.8.8 64:ff9b::8.8.8.8
"""

INNER = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.1.2.3 127.255.255.255
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1
198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::2 fc00::1 fd12:3456::1 fec0::1 ff02::1 ff0e::1 100::1 2001::1 2001:10::1 2001:20::1 2001:db8::1 3fff::1
4000::1 5f00::1 e000::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:192.168.1.1 ::ffff:0.0.0.0 ::ffff:7f00:1 ::ffff:100.64.0.1
::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8
64:ff9b::127.0.0.1 64:ff9b::10.1.2.3 64:ff9b:1::8.8.8.8 64:ff9b:1::127.0.0.1
2002:7f00:1:: 2002:a00:1::1 2002:808:808::1
"""

NEVER = """
169.254.0.0 169.254.169.254 169.254.255.255
fe80:: fe80::1 fe80::1%eth0 fe80::1%1 febf:ffff::1 fd00:ec2::254
::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::169.254.169.254 ::ffff:0:169.254.169.254
64:ff9b::169.254.169.254 64:ff9b:1::169.254.169.254
64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:a9:fe:a9fe:: 64:ff9b:1:0:a9:fea9:fe00:0
2002:a9fe:a9fe:: 2002:a9fe:a9fe::1
2001:0:a9fe:a9fe:: 2001:0:0102:0304:0:0:5601:5601
"""


@pytest.mark.parametrize("address", OPEN.split())
def test_globally_routable_addresses_may_be_called(address):
    assert reach(address) is Reach.OPEN


@pytest.mark.parametrize("address", INNER.split())
def test_everything_else_only_where_the_operator_allowed_it(address):
    assert reach(address) is Reach.INNER


@pytest.mark.parametrize("address", NEVER.split())
def test_link_local_never_in_whatever_form_it_is_written(address):
    assert reach(address) is Reach.NEVER


@given(st.ip_addresses())
def test_never_more_generous_than_python(address):
    """Ours may refuse what Python calls global, and never the other way round."""
    if reach(str(address)) is Reach.OPEN:
        carried = getattr(address, "ipv4_mapped", None) or address
        assert carried.is_global
        assert not carried.is_multicast


@given(st.ip_addresses(v=4))
def test_a_mapped_or_translated_address_is_judged_as_the_one_it_carries(address):
    assert reach(f"::ffff:{address}") is reach(str(address))
    assert reach(f"64:ff9b::{address}") is reach(str(address))


@given(st.ip_addresses(v=4), st.sampled_from([f"::{{}}%{n}" for n in ("lo", "1")]))
def test_compatible_form_is_never_open(address, form):
    assert reach(form.format(address)) >= max(Reach.INNER, reach(str(address)))


@given(st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_link_local_in_6to4_and_teredo(address):
    number = int(address)
    assert reach(str(ipaddress.IPv6Address(0x2002 << 112 | number << 80))) is Reach.NEVER
    assert reach(str(ipaddress.IPv6Address(0x20010000 << 96 | number << 64))) is Reach.NEVER
    assert reach(str(ipaddress.IPv6Address(0x20010000 << 96 | ~number & 0xFFFFFFFF))) is Reach.NEVER


def test_a_name_is_no_address():
    with pytest.raises(ValueError, match="does not appear"):
        reach("localhost")
