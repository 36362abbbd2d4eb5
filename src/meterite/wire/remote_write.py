"""Prometheus' remote write, 1.0 (``prometheus.WriteRequest``) and 2.0 (``io.prometheus.write.v2.Request``).

    series    code = the label __name__, labels = the others, in whatever order they come
    sample    value, with every bit of a NaN (stale markers are one), at its time, ms
    metadata  help and unit, to describe what is made by the name of

What this file guarantees: any bytes give columns or one of our errors; a sample is taken or rejected, by its number in
the request (from 0; a histogram is a number, too); time is linear in the body. Names are kept from request to request,
which changes nothing of what is said: a series is taken by its bytes only where those bytes, whole, were labels before
and all that follows them are samples.

Rejected: a series without ``__name__``, with a label twice, or with a name that can't be kept; in 2.0 one whose
references are odd in number or lead nowhere; native histograms, which have no place among readings of one number.
Exemplars are counted as skipped; times at which something was created or started are passed over.

Specifications: prometheus.io/docs/specs/prw/remote_write_spec and remote_write_spec_2_0; the messages are those of
github.com/prometheus/prometheus, prompb/types.proto, prompb/remote.proto and prompb/io/prometheus/write/v2/types.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meterite.model.check import check_code, check_description, check_labels, check_unit
from meterite.model.columns import Described, SeriesKey
from meterite.model.errors import InvalidInputError, TooLargeError, UnsupportedMediaError
from meterite.model.time import excerpt
from meterite.wire import protobuf as pb
from meterite.wire.samples import SAMPLE, Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meterite.model.columns import Decoded
    from meterite.model.errors import MalformedError
    from meterite.wire.names import Known, Names

MESSAGE_1: Final = "prometheus.WriteRequest"
MESSAGE_2: Final = "io.prometheus.write.v2.Request"
NAME: Final = "__name__"
SYMBOLS_MAX: Final = 1 << 20

# number << 3 | wire type
_SERIES, _METADATA = 1 << 3 | 2, 3 << 3 | 2
_LABEL, _EXEMPLAR, _HISTOGRAM = 1 << 3 | 2, 3 << 3 | 2, 4 << 3 | 2
_LABEL_NAME, _LABEL_VALUE = 1 << 3 | 2, 2 << 3 | 2
_TYPE, _FAMILY, _HELP, _UNIT = 1 << 3, 2 << 3 | 2, 4 << 3 | 2, 5 << 3 | 2
_SYMBOL_2, _SERIES_2 = 4 << 3 | 2, 5 << 3 | 2
_REFS_2, _REF_2, _HISTOGRAM_2 = 1 << 3 | 2, 1 << 3, 3 << 3 | 2
_EXEMPLAR_2, _METADATA_2 = 4 << 3 | 2, 5 << 3 | 2
_HELP_REF_2, _UNIT_REF_2 = 3 << 3, 4 << 3

_SUFFIXES: Final = {1: ("", "_total"), 3: ("", "_bucket", "_sum", "_count"), 5: ("", "_sum", "_count")}
"""By a family's type in 1.0, what the names of its series end with."""


def message_of(content_type: str | None) -> str:
    """Which message a body is: 1.0 unless the parameter ``proto`` says otherwise. UnsupportedMediaError.

    Senders of 1.0 may say nothing, or ``application/octet-stream``; a form's type is curl's.
    """
    proto = MESSAGE_1
    for parameter in (content_type or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "proto":
            proto = value.strip().strip('"')
    if proto in {MESSAGE_1, MESSAGE_2}:
        return proto
    raise UnsupportedMediaError(
        "protobuf-unknown", f"{excerpt(proto)} is not taken; send {MESSAGE_2} or {MESSAGE_1}."
    )


def decode_remote_write(body: bytes, *, message: str, names: Names, readings_max: int) -> Decoded:
    """The samples of a body, unpacked. MalformedError, TooLargeError."""
    decode = _decode_2 if message == MESSAGE_2 else _decode_1
    return decode(body, names.known(), Samples(body, readings_max)).decoded()


def parse_labels(raw: bytes) -> SeriesKey:
    """The name that labels of 1.0 say, which stand there as fields and nothing else. MeteriteError."""
    return _key([_label(raw, start, end) for _, start, end in pb.fields(raw)])


def _key(labels: Iterable[tuple[str, str]]) -> SeriesKey:
    """InvalidInputError."""
    pairs: dict[str, str] = {}
    for name, value in labels:
        if name in pairs:
            raise InvalidInputError("label-duplicate", f"The label {excerpt(name)} stands there twice.")
        pairs[name] = value
    code = pairs.pop(NAME, "")
    if not code:
        raise InvalidInputError("name-missing", "A series needs its metric's name as the label __name__.")
    return SeriesKey(check_code(code), check_labels(pairs))


# ----------------------------------------------------------------------------------------------------
# 1.0


def _decode_1(body: bytes, names: Known, samples: Samples) -> Samples:
    series = _Series1(body, names, samples)
    by_raw = names.within(MESSAGE_1)
    known = not body
    at = 0
    while at < len(body):
        start = at
        at = samples.take_singles(at, _SERIES, by_raw)
        known = known or at > start
        if at == len(body):
            break
        tag, start, at = next(pb.fields(body, at))
        if tag == _SERIES:
            known = True
            if not series.take_known(start, at):
                series.take(start, at)
        elif tag == _METADATA:
            known = True
            _describe_family(body, start, at, samples)
    if not known:
        raise _another(MESSAGE_1)
    return samples


def _another(message: str) -> MalformedError:
    """The messages have no number of a field in common: nothing of one would be found in the other, without a word."""
    return pb.malformed(0, f"nothing of {message} (does the Content-Type name the message?)")


class _Series1:
    """Series after series: by their bytes where their labels were seen before, else label by label."""

    def __init__(self, body: bytes, names: Known, samples: Samples) -> None:
        self._body = body
        self._names = names
        self._known = names.within(MESSAGE_1).get
        self._samples = samples
        self._samples_bytes = 0

    def take_known(self, start: int, end: int) -> bool:
        """A series of known labels and nothing behind them but samples; else False, and nothing is taken.

        Where the labels end is a guess: as many bytes of samples as the series before had, or all fields that look like
        labels of less than 128 bytes. What was kept is labels from end to end, so it can't be a wrong one.
        """
        body = self._body
        labels_end = end - self._samples_bytes
        key = self._known(body[start:labels_end]) if labels_end > start else None
        if key is None:
            labels_end = start
            while labels_end + 1 < end and body[labels_end] == _LABEL:
                labels_end += 2 + body[labels_end + 1]
            if labels_end > end:
                return False
            key = self._known(body[start:labels_end])
        if key is None or not self._samples.take_all(key, labels_end, end):
            return False
        self._samples_bytes = end - labels_end
        return True

    def take(self, start: int, end: int) -> None:
        """Any series."""
        body, samples = self._body, self._samples
        found = _by_tag(body, start, end)
        histograms = len(found.get(_HISTOGRAM, ()))
        samples.skip(len(found.get(_EXEMPLAR, ())))
        if SAMPLE not in found and not histograms:
            return
        labels = found.get(_LABEL, [])
        count = len(found.get(SAMPLE, ()))
        try:
            key = _key([_label(body, *place) for place in labels])
        except InvalidInputError as error:
            samples.reject(error, count + histograms)
            return
        if count:
            samples.take_each(self._keep(key, labels, start), found[SAMPLE])
        samples.reject(_NO_HISTOGRAMS, histograms)

    def _keep(self, key: SeriesKey, labels: list[tuple[int, int]], start: int) -> SeriesKey:
        """Known by its bytes from now on, where nothing stands before or among its labels."""
        raw = self._body[start : labels[-1][1]]
        if [place for _, *place in pb.fields(raw)] != [[at - start, end - start] for at, end in labels]:
            return self._names.one(key)
        return self._names.keep(MESSAGE_1, raw, key)


def _by_tag(body: bytes, start: int, end: int) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for tag, number, field_end in pb.fields(body, start, end):
        if tag in found:
            found[tag].append((number, field_end))
        else:
            found[tag] = [(number, field_end)]
    return found


_NO_HISTOGRAMS: Final = InvalidInputError(
    "native-histogram",
    "Native histograms are not kept; send classic ones (Prometheus: send_native_histograms: false).",
)


def _label(body: bytes, start: int, end: int) -> tuple[str, str]:
    name = value = ""
    for tag, field_at, field_end in pb.fields(body, start, end):
        if tag == _LABEL_NAME:
            name = pb.text(body, field_at, field_end)
        elif tag == _LABEL_VALUE:
            value = pb.text(body, field_at, field_end)
    return name, value


def _describe_family(body: bytes, start: int, end: int, samples: Samples) -> None:
    kind, texts = 0, {_FAMILY: "", _HELP: "", _UNIT: ""}
    for tag, field_at, field_end in pb.fields(body, start, end):
        if tag == _TYPE:
            kind = field_at
        elif tag in texts:
            texts[tag] = pb.text(body, field_at, field_end)
    told = _described(texts[_UNIT], texts[_HELP])
    if texts[_FAMILY] and told is not None:
        for suffix in _SUFFIXES.get(kind, ("",)):
            samples.describe(texts[_FAMILY] + suffix, told)


def _described(unit: str, description: str) -> Described | None:
    """None where there is nothing to tell. What can't be kept isn't told: no reading fails by it."""
    told = Described(_or_nothing(check_unit, unit), _or_nothing(check_description, description))
    return None if told == Described() else told


def _or_nothing(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except InvalidInputError:
        return ""


# ----------------------------------------------------------------------------------------------------
# 2.0


def _decode_2(body: bytes, names: Known, samples: Samples) -> Samples:
    symbols: list[str] = []
    places: list[tuple[int, int]] = []  # symbols may stand behind what refers to them
    for tag, start, end in pb.fields(body):
        if tag == _SYMBOL_2:
            symbols.append(pb.text(body, start, end))
            if len(symbols) > SYMBOLS_MAX:
                raise TooLargeError(
                    "too-many-symbols",
                    f"A request may have at most {SYMBOLS_MAX} symbols; send several requests.",
                )
        elif tag == _SERIES_2:
            samples.check_room(len(places) + 1)
            places.append((start, end))
    if body and not symbols and not places:
        raise _another(MESSAGE_2)
    series = _Series2(body, symbols, names, samples)
    for start, end in places:
        series.take(start, end)
    return samples


class _Series2:
    """Series after series, their labels by reference. Within a request the same references are the same labels."""

    def __init__(self, body: bytes, symbols: Sequence[str], names: Known, samples: Samples) -> None:
        self._body = body
        self._symbols = symbols
        self._names = names
        self._known = names.within(MESSAGE_2).get
        self._samples = samples
        self._told: set[tuple[str, bytes]] = set()

    def take(self, start: int, end: int) -> None:
        body, samples = self._body, self._samples
        found = _by_tag(body, start, end)
        histograms = len(found.get(_HISTOGRAM_2, ()))
        samples.skip(len(found.get(_EXEMPLAR_2, ())))
        if SAMPLE not in found and not histograms:
            return
        try:
            key = self._key_of(self._refs(found))
        except InvalidInputError as error:
            samples.reject(error, len(found.get(SAMPLE, ())) + histograms)
            return
        samples.take_each(key, found.get(SAMPLE, ()))
        samples.reject(_NO_HISTOGRAMS, histograms)
        if _METADATA_2 in found:
            self._describe(key.code, *found[_METADATA_2][-1])

    def _refs(self, found: Mapping[int, Sequence[tuple[int, int]]]) -> list[int]:
        """Packed as they should be, or one by one as protobuf has it, too."""
        refs = [ref for ref, _ in found.get(_REF_2, ())]
        for start, end in found.get(_REFS_2, ()):
            refs += pb.packed_varints(self._body, start, end)
        return refs

    def _key_of(self, refs: list[int]) -> SeriesKey:
        try:
            raw = tuple(map(self._symbols.__getitem__, refs))
        except IndexError as exc:
            raise InvalidInputError(
                "symbol-unknown", f"A series refers to symbols that the request doesn't have: {max(refs)}."
            ) from exc
        known = self._known(raw)
        if known is not None:
            return known
        if len(raw) % 2:
            raise InvalidInputError(
                "symbols-odd", "A series refers to names without values: labels are pairs."
            )
        return self._names.keep(MESSAGE_2, raw, _key(zip(raw[::2], raw[1::2], strict=True)))

    def _describe(self, code: str, start: int, end: int) -> None:
        place = (code, self._body[start:end])
        if start == end or place in self._told:
            return
        self._told.add(place)
        refs = {tag: value for tag, value, _ in pb.fields(self._body, start, end)}
        told = _described(self._symbol(refs.get(_UNIT_REF_2, 0)), self._symbol(refs.get(_HELP_REF_2, 0)))
        if told is not None:
            self._samples.describe(code, told)

    def _symbol(self, ref: int) -> str:
        return self._symbols[ref] if ref < len(self._symbols) else ""
