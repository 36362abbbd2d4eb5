"""io.prometheus.client messages as their bytes, written from the schema alone."""

from __future__ import annotations

import struct


def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """An int is a varint, a float a double, a text or bytes has a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(*pairs):
    return b"".join(field(number, value) for number, value in pairs)


def metric(*pairs, **labels):
    return (4, message(*((1, message((1, n), (2, v))) for n, v in labels.items()), *pairs))


def gauge(value):
    return (2, message((1, float(value))))


def counter(value, *more):
    return (3, message((1, float(value)), *more))


def family(name, *pairs):
    """Delimited."""
    data = message((1, name), *pairs)
    return varint(len(data)) + data
