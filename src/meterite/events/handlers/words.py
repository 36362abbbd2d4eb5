"""An event in a sentence, for people: what alerts, mails and chats say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from meterite.model.event import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meterite.model.event import Event

URGENT: Final = frozenset({EventType.ABOVE_MAX, EventType.BELOW_MIN, EventType.SILENT, EventType.DEAD})
GOOD: Final = frozenset({EventType.CLEARED, EventType.RESUMED})


def title(event: Event) -> str:
    """One line."""
    told = _TITLES.get(event.type)
    return told(event, event.data) if told else f"{event.subject}: {event.type}"


def details(event: Event) -> str:
    """A few lines on top of the title."""
    data = event.data
    lines = [f"org: {event.org}", f"metric: {_called(event)}"]
    lines += [f"label {name}: {value}" for name, value in data.get("labels", {}).items()]
    if readings := data.get("readings"):
        furthest = readings["extreme"]
        count = f"{readings['count']}, " if "count" in readings else ""
        lines.append(f"readings: {count}the furthest {furthest['reading']} at {furthest['reading_at']}")
    if limits := data.get("limits"):
        lines.append(f"limits: {_limit(limits['min_reading'])} to {_limit(limits['max_reading'])}")
    if data.get("error"):
        lines.append(f"error: {data['error']}")
    return "\n".join([*lines, f"recorded: {event.time}", f"event: {event.id}"])


def _called(event: Event) -> str:
    metric = event.data.get("metric")
    return f"{metric['name']} ({metric['code']})" if metric else event.subject


def _amount(data: Mapping[str, Any], number: Any) -> str:
    unit = data.get("metric", {}).get("unit")
    return f"{number} {unit}" if unit else str(number)


def _limit(number: Any) -> str:
    """None is a limit that isn't there."""
    return "any" if number is None else str(number)


def _above(event: Event, data: Mapping[str, Any]) -> str:
    return _outside(event, "above its maximum of " + _amount(data, data["limits"]["max_reading"]))


def _below(event: Event, data: Mapping[str, Any]) -> str:
    return _outside(event, "below its minimum of " + _amount(data, data["limits"]["min_reading"]))


def _outside(event: Event, where: str) -> str:
    late = " (a late reading)" if event.data.get("late") else ""
    furthest = event.data["readings"]["extreme"]["reading"]
    return f"{_called(event)} is {where}: {_amount(event.data, furthest)}{late}"


def _cleared(event: Event, data: Mapping[str, Any]) -> str:
    return (
        f"{_called(event)} is within its limits again: {_amount(data, data['readings']['last']['reading'])}"
    )


def _silent(event: Event, data: Mapping[str, Any]) -> str:
    if "expected_every" not in data:
        return f"{_called(event)} is silent"
    expected, newest = data["expected_every"], data["current_reading_at"]
    return f"{_called(event)} is silent since {newest}, a reading is expected every {expected}"


def _resumed(event: Event, data: Mapping[str, Any]) -> str:
    return f"{_called(event)} has readings again: {_amount(data, data['reading'])}"


def _changed(event: Event, data: Mapping[str, Any]) -> str:
    fields = ", ".join(sorted(data["after"]))
    return f"{_called(event)} was {data['change']}" + (f": {fields}" if fields else "")


def _dead(event: Event, data: Mapping[str, Any]) -> str:
    return f"{data['handler']} was not told of {data['event']['type']} for {event.subject}: {data['error']}"


_TITLES: Final[Mapping[str, Callable[[Event, Mapping[str, Any]], str]]] = {
    EventType.ABOVE_MAX: _above,
    EventType.BELOW_MIN: _below,
    EventType.CLEARED: _cleared,
    EventType.SILENT: _silent,
    EventType.RESUMED: _resumed,
    EventType.CHANGED: _changed,
    EventType.DEAD: _dead,
}
