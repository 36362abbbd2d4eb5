"""What somebody did to a metric, as an event tells of it: the audit trail.

What this file guarantees: fields have the API's names and forms; of an update only those stand there that differ.
"""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from meterite.model.event import EventType
from meterite.model.event_row import Document, MetricName
from meterite.model.metric import MetricSpec
from meterite.model.number import plain_number
from meterite.model.time import format_rfc3339

if TYPE_CHECKING:
    from meterite.model.metric import Metric

_API_NAMES: Final = {"outside_for": "for", "mute_until_us": "mute_until"}


def updated(before: Metric, after: Metric) -> Document | None:
    """None where nothing differs."""
    differ = [
        f.name for f in fields(MetricSpec) if getattr(before.spec, f.name) != getattr(after.spec, f.name)
    ]
    if not differ:
        return None
    return _changed(after, "updated", _values(before.spec, differ), _values(after.spec, differ))


def activated(metric: Metric) -> Document:
    """Or deactivated; ``metric`` is as it is now."""
    change = "activated" if metric.active else "deactivated"
    return _changed(metric, change, {"active": not metric.active}, {"active": metric.active})


def deleted(metric: Metric) -> Document:
    return _changed(metric, "deleted", {}, {})


def name_of(metric: Metric) -> dict[int, MetricName]:
    """What an event calls it."""
    return {metric.id: MetricName(metric.spec.code, metric.spec.name, metric.spec.unit)}


def _changed(metric: Metric, change: str, before: dict[str, Any], after: dict[str, Any]) -> Document:
    return Document(EventType.CHANGED, metric.id, {"change": change, "before": before, "after": after})


def _values(spec: MetricSpec, names: list[str]) -> dict[str, Any]:
    return {_API_NAMES.get(name, name): _value(name, getattr(spec, name)) for name in names}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return plain_number(value)
    return format_rfc3339(value) if name == "mute_until_us" and value is not None else value
