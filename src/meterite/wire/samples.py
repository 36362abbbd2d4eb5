"""Samples of remote write, on their way into columns.

    message Sample { double value = 1; int64 timestamp = 2; int64 start_timestamp = 3; }

What this file guarantees: a sample is decoded as protobuf says, whatever order and bytes its fields have; every bit of
a NaN is kept; no more than ``readings_max`` samples, good and bad, are ever held. A sample as all senders write it,
between 1971 and 2109, has one of two shapes (a value of 0 isn't written): only the place of its time is noted, and
numpy reads all of them at once. Any other shape is read field by field, to the same effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import Decoded, Described, Rejected
from meterite.model.errors import InvalidInputError
from meterite.model.time import from_unit
from meterite.wire import protobuf as pb
from meterite.wire.gather import too_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meterite.model.columns import SeriesKey
    from meterite.wire.names import Kept

DESCRIBED_MAX: Final = 100_000

# number << 3 | wire type
SAMPLE: Final = 2 << 3 | 2
"""Within a series, in both versions."""
_VALUE: Final = 1 << 3 | 1
_AT: Final = 2 << 3

# With its tag and its length: value (tag and 8 bytes) and time (tag and 6 bytes), or time alone.
_FULL_BYTES: Final = 18
_ZERO_BYTES: Final = 9
_AT_BYTES: Final = 6
_VALUE_BACK: Final = 9
_ODD: Final = -1
_MORE: Final = 0x80
_TWO_BYTES: Final = 1 << 14

_HIGH: Final = np.uint64(0x8080_8080_8080)
_HIGH_SIX: Final = np.uint64(0x0080_8080_8080)
_LOW: Final = np.uint64(0x7F)


class Samples:
    """``key`` objects that are equal must be the same object."""

    def __init__(self, body: bytes, readings_max: int) -> None:
        self._body = body
        self._readings_max = readings_max
        self._keys: list[SeriesKey] = []
        self._place_of: dict[int, int] = {}
        self._key_index: list[int] = []
        self._times_at: list[int] = []
        self._zeros: list[int] = []
        self._odd: dict[int, tuple[int, int]] = {}
        self._rejected: list[Rejected] = []
        self._skipped = 0
        self._described: dict[str, Described] = {}

    def take_singles(self, at: int, tag: int, known: Kept) -> int:
        """Series of this tag, each one sample of usual shape behind known labels. Where there is something else.

        Most requests are nothing else, and so all of it stands here in one loop.
        """
        body, size = self._body, len(self._body)
        key_of, key_index, times_at = known.get, self._key_index, self._times_at
        while at + _FULL_BYTES < size and body[at] == tag:
            start = at + 2
            length = body[at + 1]
            if length >= _MORE:
                length += (body[start] - 1) << 7
                start += 1
            end = start + length
            labels_end = end - _FULL_BYTES
            if end > size or length <= _FULL_BYTES or (length >= _TWO_BYTES):
                break
            if body[labels_end : labels_end + 3] == b"\x12\x10\x09" and body[labels_end + 11] == _AT:
                key = key_of(body[start:labels_end])
            elif body[end - _ZERO_BYTES : end - _AT_BYTES] == b"\x12\x07\x10":
                key = key_of(body[start : end - _ZERO_BYTES])
                if key is not None:
                    self._zeros.append(len(times_at))
            else:
                break
            if key is None:
                break
            key_index.append(self._place(key))
            times_at.append(end - _AT_BYTES)
            at = end
        self.check_room(0)
        return at

    def take_all(self, key: SeriesKey, start: int, end: int) -> bool:
        """Fields that are samples; else False, and nothing is taken."""
        size = end - start
        if not size:
            return True  # and the series isn't among those that have readings
        if size % _FULL_BYTES == 0 and _are_full(self._body, start, end, size // _FULL_BYTES):
            self._take_run(key, start, end, _FULL_BYTES)
        elif size % _ZERO_BYTES == 0 and _are_zero(self._body, start, end, size // _ZERO_BYTES):
            row = len(self._times_at)
            self._take_run(key, start, end, _ZERO_BYTES)
            self._zeros += range(row, len(self._times_at))
        else:
            found = list(pb.fields(self._body, start, end))
            if any(tag != SAMPLE for tag, _, _ in found):
                return False
            self.take_each(key, [place for _, *place in found])
        return True

    def _take_run(self, key: SeriesKey, start: int, end: int, step: int) -> None:
        count = (end - start) // step
        self.check_room(count)
        self._times_at += range(start + step - _AT_BYTES, end, step)
        self._key_index += [self._place(key)] * count

    def take_each(self, key: SeriesKey, found: Sequence[Sequence[int]]) -> None:
        """Samples by what lies within their fields."""
        self.check_room(len(found))
        if found:
            self._key_index += [self._place(key)] * len(found)
        body, times_at = self._body, self._times_at
        for start, end in found:
            size, first = end - start, body[start] if start < end else 0
            if size == _FULL_BYTES - 2 and first == _VALUE and body[start + 9] == _AT:
                times_at.append(end - _AT_BYTES)
            elif size == _ZERO_BYTES - 2 and first == _AT:
                self._zeros.append(len(times_at))
                times_at.append(end - _AT_BYTES)
            else:
                self._odd[len(times_at)] = (start, end)
                times_at.append(_ODD)

    def _place(self, key: SeriesKey) -> int:
        place = self._place_of.get(id(key))
        if place is None:
            place = self._place_of[id(key)] = len(self._keys)
            self._keys.append(key)
        return place

    def reject(self, error: InvalidInputError, count: int) -> None:
        """As many samples or histograms can't be taken."""
        self.check_room(count)
        number = len(self._times_at) + len(self._rejected)
        self._rejected += [Rejected(number + n, error.code, error.message) for n in range(count)]

    def skip(self, count: int) -> None:
        """Well-formed, and no reading."""
        self._skipped += count

    def describe(self, code: str, told: Described) -> None:
        """The first word of a code counts; of very many codes the first are told of."""
        if len(self._described) < DESCRIBED_MAX:
            self._described.setdefault(code, told)

    def check_room(self, count: int) -> None:
        """TooLargeError."""
        if len(self._times_at) + len(self._rejected) + count > self._readings_max:
            raise too_many(self._readings_max)

    def decoded(self) -> Decoded:
        """All of it."""
        count = len(self._times_at)
        numbers = np.delete(np.arange(count + len(self._rejected)), [each.index for each in self._rejected])
        at_ms, bits = self._read_usual(np.array(self._times_at, np.int64))
        good = np.ones(count, np.bool_)
        for row, (start, end) in self._odd.items():
            value, time = _fields_of(self._body, start, end)
            try:
                from_unit(time, "ms")
            except InvalidInputError as error:
                good[row] = False
                self._rejected.append(Rejected(int(numbers[row]), error.code, error.message))
            else:
                at_ms[row], bits[row] = time, value
        self._rejected.sort(key=lambda each: each.index)
        key_index, values, at_us = np.array(self._key_index, np.uint32), bits.view(np.float64), at_ms * 1000
        keys = self._keys
        if not good.all():
            key_index, values, at_us, numbers = key_index[good], values[good], at_us[good], numbers[good]
            used, places = np.unique(key_index, return_inverse=True)
            keys, key_index = [keys[n] for n in used], places.astype(np.uint32)
        return Decoded(
            keys,
            key_index,
            at_us,
            values,
            numbers,
            self._rejected,
            self._skipped,
            self._described,
            unit="ms",
        )

    def _read_usual(self, times_at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Times, and values as their bits, of samples of usual shape; the others' are 0."""
        at_ms, bits = np.zeros(len(times_at), np.int64), np.zeros(len(times_at), np.uint64)
        if len(self._odd) == len(times_at):
            return at_ms, bits
        # The 8 bytes at each place of the body, without copying it.
        words = np.ndarray((len(self._body) - 7,), "<u8", self._body, 0, (1,))
        usual = times_at >= 0
        raw = words[times_at - 2] >> np.uint64(16)
        times = np.zeros(len(times_at), np.uint64)
        for byte in range(_AT_BYTES):
            times |= (raw >> np.uint64(8 * byte) & _LOW) << np.uint64(7 * byte)
        bits[:] = words[np.maximum(times_at - _VALUE_BACK, 0)]
        bits[self._zeros] = 0
        at_ms[:] = times
        self._odd |= self._otherwise(times_at, usual & (raw & _HIGH != _HIGH_SIX))
        at_ms[~usual], bits[~usual] = 0, 0
        return at_ms, bits

    def _otherwise(
        self, times_at: NDArray[np.int64], unusual: NDArray[np.bool_]
    ) -> dict[int, tuple[int, int]]:
        """Samples that are as long as the usual ones, and differ inside."""
        if not unusual.any():
            return {}
        zeros = set(self._zeros)
        ends = times_at + _AT_BYTES
        return {
            row: (int(ends[row]) - (_ZERO_BYTES if row in zeros else _FULL_BYTES) + 2, int(ends[row]))
            for row in np.flatnonzero(unusual).tolist()
        }


def _are_full(body: bytes, start: int, end: int, count: int) -> bool:
    return (
        body[start:end:_FULL_BYTES] == b"\x12" * count
        and body[start + 1 : end : _FULL_BYTES] == b"\x10" * count
        and body[start + 2 : end : _FULL_BYTES] == b"\x09" * count
        and body[start + 11 : end : _FULL_BYTES] == b"\x10" * count
    )


def _are_zero(body: bytes, start: int, end: int, count: int) -> bool:
    return (
        body[start:end:_ZERO_BYTES] == b"\x12" * count
        and body[start + 1 : end : _ZERO_BYTES] == b"\x07" * count
        and body[start + 2 : end : _ZERO_BYTES] == b"\x10" * count
    )


def _fields_of(body: bytes, start: int, end: int) -> tuple[int, int]:
    """Value, as its bits, and time. MalformedError."""
    value = time = 0
    for tag, number, _ in pb.fields(body, start, end):
        if tag == _VALUE:
            value = pb.fixed64(body, number)
        elif tag == _AT:
            time = pb.signed(number)
    return value, time
