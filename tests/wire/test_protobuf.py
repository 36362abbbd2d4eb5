"""The protobuf walker, with Google's library as its oracle."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from meterite.model.errors import MalformedError
from meterite.wire import protobuf as pb

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    1: ("u", _FIELD.TYPE_UINT64),
    2: ("i", _FIELD.TYPE_INT64),
    3: ("z", _FIELD.TYPE_SINT64),
    4: ("d", _FIELD.TYPE_DOUBLE),
    5: ("f", _FIELD.TYPE_FLOAT),
    6: ("x", _FIELD.TYPE_FIXED64),
    7: ("b", _FIELD.TYPE_BYTES),
    2000: ("far", _FIELD.TYPE_BYTES),
}


def _message_class():
    file = descriptor_pb2.FileDescriptorProto(name="walked.proto", package="walked", syntax="proto3")
    message = file.message_type.add(name="Walked")
    for number, (name, kind) in _TYPES.items():
        message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    message.field.add(name="packed", number=8, type=_FIELD.TYPE_UINT64, label=_FIELD.LABEL_REPEATED)
    message.field.add(name="doubles", number=9, type=_FIELD.TYPE_DOUBLE, label=_FIELD.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("walked.Walked"))


Walked = _message_class()

_READ = {
    1 << 3: ("u", lambda _, value, __: value),
    2 << 3: ("i", lambda _, value, __: pb.signed(value)),
    3 << 3: ("z", lambda _, value, __: pb.zigzag(value)),
    4 << 3 | pb.FIXED64: ("d", lambda data, start, _: pb.double(data, start)),
    5 << 3 | pb.FIXED32: ("f", lambda data, start, _: pb.float32(data, start)),
    6 << 3 | pb.FIXED64: ("x", lambda data, start, _: pb.fixed64(data, start)),
    7 << 3 | pb.LENGTH: ("b", lambda data, start, end: data[start:end]),
    2000 << 3 | pb.LENGTH: ("far", lambda data, start, end: data[start:end]),
    8 << 3 | pb.LENGTH: ("packed", pb.packed_varints),
    9 << 3 | pb.LENGTH: ("doubles", lambda *place: pb.packed_doubles(*place).tolist()),
}
_U64 = st.integers(0, 2**64 - 1)
_I64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "u": _U64,
            "i": _I64,
            "z": _I64,
            "d": st.floats(allow_nan=False),
            "f": st.floats(width=32, allow_nan=False),
            "x": _U64,
            "b": st.binary(max_size=300),
            "far": st.binary(max_size=300),
            "packed": st.lists(_U64 | st.integers(0, 127), max_size=20),
            "doubles": st.lists(st.floats(allow_nan=False), max_size=20),
        },
    ),
    st.binary(max_size=5),
)
def test_what_the_library_writes_is_walked(values, around):
    """Each field with its number and value, whatever lies before and behind the bounds."""
    body = Walked(**values).SerializeToString()
    data = around + body + around
    found = {}
    for tag, start, end in pb.fields(data, len(around), len(around) + len(body)):
        name, read = _READ[tag]
        found[name] = read(data, start, end)
    assert found == {name: value for name, value in values.items() if not _left_out(value)}


def _left_out(value):
    """Proto3 writes no zero (but -0.0) and nothing empty."""
    return value in (0, b"", []) and not (isinstance(value, float) and math.copysign(1, value) < 0)


def _walk(data):
    return list(pb.fields(data))


def _is_walked(data):
    try:
        for tag, start, end in pb.fields(data):
            if tag in _READ:
                _READ[tag][1](data, start, end)
    except MalformedError:
        return False
    return True


def _is_parsed(data):
    try:
        Walked.FromString(data)
    except DecodeError:
        return False
    return True


@given(st.binary(max_size=40))
@example(b"\x08\x80")
@example(b"\x42\x01\x80")
@example(b"\x4a\x07abcdefg")
def test_any_bytes_are_fields_or_malformed(data):
    """What the walker takes the library takes; what it refuses is refused by its own error."""
    assert not _is_walked(data) or _is_parsed(data)


@pytest.mark.parametrize(
    ("data", "byte", "what"),
    [
        (b"\x0a", 1, "a number that doesn't end"),
        (b"\x0a\x05abc", 0, "longer than what holds it"),
        (b"\x08\x01\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 2, "longer than what holds it"),
        (b"\x09\0\0\0\0\0\0\0", 0, "longer than what holds it"),
        (b"\x0d\0\0\0", 0, "longer than what holds it"),
        (b"\x08", 1, "a number that doesn't end"),
        (b"\x08\xff\xff", 1, "a number that doesn't end"),
        (b"\x08" + b"\xff" * 10 + b"\x01", 1, "too many bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x02", 1, "more than 64 bits"),
        (b"\x00\x01", 0, "no field's tag"),
        (b"\x07", 0, "no field's tag"),
        (b"\x88\x80\x80\x80\x80\x01\x01", 0, "no field's tag"),
        (b"\x08\x01\x0b\x0c", 2, "a group"),
        (b"\x0c", 0, "a group"),
        (b"\x0e\x01", 0, "an unknown wire type"),
        (b"\x0f\x01", 0, "an unknown wire type"),
    ],
)
def test_what_is_refused(data, byte, what):
    """The error names the byte where the field, or the number in it, starts."""
    with pytest.raises(MalformedError, match=f"{what} at byte {byte}\\."):
        _walk(data)


def test_a_message_is_bounded_by_what_holds_it():
    """A field can't reach into what lies behind its message, even where there are bytes."""
    with pytest.raises(MalformedError):
        list(pb.fields(b"\x0a\x02abcdef", 0, 3))
    with pytest.raises(MalformedError):
        list(pb.fields(b"\x08\x80\x01", 0, 2))


def test_needless_bytes_of_a_varint_are_taken():
    """As by the library."""
    data = b"\x88\x00\x81\x80\x00"
    assert _walk(data) == [(8, 1, 5)]
    assert Walked.FromString(data).u == 1


def test_strings():
    """UTF-8, or an error at the byte that isn't."""
    assert pb.text("xÄy".encode(), 1, 3) == "Ä"
    with pytest.raises(MalformedError, match="at byte 3"):
        pb.text(b"ab\x41\xff\x41", 2, 5)
    with pytest.raises(MalformedError):
        pb.text(b"\xed\xa0\x80", 0, 3)


def test_packed_numbers():
    """A packed number may not be cut, in any width."""
    assert pb.packed_varints(b"\x01\x02\x7f", 1, 3) == [2, 127]
    assert pb.packed_varints(b"", 0, 0) == []
    with pytest.raises(MalformedError):
        pb.packed_varints(b"\x01\x80\x01", 0, 2)
    stale = struct.pack("<Q", 0x7FF0000000000002)
    assert pb.packed_doubles(b"x" + stale, 1, 9).view(np.uint64).tolist() == [0x7FF0000000000002]
    assert pb.packed_fixed64(stale * 2, 0, 16).tolist() == [0x7FF0000000000002] * 2
    with pytest.raises(MalformedError):
        pb.packed_doubles(stale, 0, 7)


def test_nesting_is_bounded():
    """Who follows messages into themselves is stopped."""
    depth = 0
    for _ in range(pb.DEPTH_MAX):
        depth = pb.deeper(depth, 5)
    with pytest.raises(MalformedError, match="levels of nesting at byte 5"):
        pb.deeper(depth, 5)
