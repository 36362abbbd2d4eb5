"""Value lists as collectd's ``write_http`` sends them with ``Format "JSON"``.

By https://www.collectd.org/documentation/manpages/collectd.conf.html#plugin-write_http and what collectd 5.12 sends:

    [{"values": [1.5, null], "dstypes": ["gauge", "derive"], "dsnames": ["read", "write"], "time": 1769817600.250,
      "interval": 10.000, "host": "h", "plugin": "disk", "plugin_instance": "sda", "type": "disk_octets",
      "type_instance": ""}]

What this file guarantees: a value is a reading of the metric ``plugin_type``, with ``_dsname`` behind it where that
isn't ``value``; ``host``, ``plugin``, ``plugin_instance``, ``type_instance`` and ``dsname`` (but ``value``) are labels.
``plugin`` and ``dsname`` being labels, a series' identifier can be had back from it. ``null``, an unknown value, is
skipped; whatever else can't be taken is rejected, and costs nothing of what is beside it. ``dstypes``, ``interval`` and
``meta`` aren't kept. Rows are numbers of value lists. A notification (which has an ``annotations``) is no reading.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from meterite.model.errors import InvalidInputError, MalformedError
from meterite.model.time import check_seconds, excerpt
from meterite.wire.gather import Gathered
from meterite.wire.json_exact import load_exact
from meterite.wire.readings_exact import exact_reading

if TYPE_CHECKING:
    from meterite.model.columns import Decoded, SeriesKey

LONE: Final = "value"
"""The name of a type's only value, which says nothing."""

_IDENTIFIER: Final = ("host", "plugin", "plugin_instance", "type", "type_instance")
_COMMANDS: Final = b"PUTVAL"
_Named = tuple[str, ...]


def decode_collectd(body: bytes, *, readings_max: int) -> Decoded:
    """The readings of an array of value lists, or of one alone."""
    if body.lstrip()[: len(_COMMANDS)] == _COMMANDS:
        raise MalformedError(
            "json-invalid", 'These are commands; write Format "JSON" into the node of write_http.'
        )
    document = load_exact(body)
    gathered = Gathered(readings_max, unit="s")
    named: dict[_Named, SeriesKey] = {}
    for row, entry in enumerate(document if isinstance(document, list) else [document]):
        try:
            _gather_list(gathered, named, entry, row)
        except InvalidInputError as exc:
            for _ in range(_values_of(entry)):
                gathered.reject(row, exc.code, exc.message)
    return gathered.decoded()


def _values_of(entry: object) -> int:
    """How many readings are lost with a value list that can't be taken whole; at least one."""
    values = entry.get("values") if isinstance(entry, dict) else None
    return max(len(values), 1) if isinstance(values, list) else 1


def _gather_list(gathered: Gathered, named: dict[_Named, SeriesKey], entry: object, row: int) -> None:
    if not isinstance(entry, dict):
        raise InvalidInputError("shape-invalid", "A value list must be a JSON object.")
    if "annotations" in entry and "values" not in entry:
        gathered.skip()
        return
    values, names = _list(entry, "values"), _list(entry, "dsnames")
    if len(values) != len(names):
        raise InvalidInputError("lengths-differ", "values and dsnames must be arrays of one length.")
    identifier = tuple(_text(entry, part) for part in _IDENTIFIER)
    at_us = _time(entry.get("time"))
    for value, name in zip(values, names, strict=True):
        if value is None:
            gathered.skip()
            continue
        try:
            gathered.add(_key(gathered, named, (*identifier, name)), at_us, exact_reading(value), row)
        except InvalidInputError as exc:
            gathered.reject(row, exc.code, exc.message)


def _list(entry: dict[str, Any], field: str) -> list[Any]:
    found = entry.get(field)
    if not isinstance(found, list):
        raise InvalidInputError("shape-invalid", f"A value list needs an array {field}.")
    return found


def _text(entry: dict[str, Any], field: str) -> str:
    found = entry.get(field, "")
    if not isinstance(found, str) or not (found or field.endswith("_instance")):
        raise InvalidInputError("shape-invalid", f"A value list needs a string {field}.")
    return found


def _time(seconds: object) -> int:
    """µs since 1970. collectd writes three decimals, which a float64 carries to the µs."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInputError("time-invalid", "A value list needs time, in seconds since 1970.")
    us = seconds * 1_000_000
    if isinstance(us, float) and not math.isfinite(us):
        raise InvalidInputError("time-invalid", "A value list needs a time that is finite.")
    return check_seconds(round(us))


def _key(gathered: Gathered, named: dict[_Named, SeriesKey], name: tuple[Any, ...]) -> SeriesKey:
    """Checked once in a request."""
    host, plugin, plugin_instance, type_, type_instance, dsname = name
    if not isinstance(dsname, str) or not dsname:
        raise InvalidInputError("shape-invalid", f"{excerpt(str(dsname))} in dsnames is no name.")
    key = named.get(name)
    if key is None:
        labels = {
            "host": host,
            "plugin": plugin,
            "plugin_instance": plugin_instance,
            "type_instance": type_instance,
            "dsname": "" if dsname == LONE else dsname,
        }
        code = f"{plugin}_{type_}" + (f"_{dsname}" if labels["dsname"] else "")
        key = named[name] = gathered.key(code, labels)
    return key
