"""``record``: writes a reading derived from the event, into the event's org.

What this file guarantees: a metric that any handler of this kind may write to is *derived*, and events of derived
metrics are passed over by all of them, so that a derived reading never makes another one, whatever limits it breaks. A
second try writes the same reading at the same time, which replaces the first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from meterite.events.handler import several
from meterite.events.hooks import (
    Event,
    EventType,
    Handler,
    HandlerOptions,
    Kind,
    Refused,
    Retry,
    Tools,
    hookimpl,
)
from meterite.model.check import check_code
from meterite.model.errors import InvalidInputError, MeteriteError
from meterite.model.time import parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

CODE: Final = "{code}"
STATES: Final = {EventType.ABOVE_MAX: 1.0, EventType.BELOW_MIN: -1.0, EventType.CLEARED: 0.0}


class RecordOptions(HandlerOptions):
    """``to`` is the code of a metric that exists; in it, ``{code}`` stands for the code of the event's own.

    ``value`` says what is written: ``state`` is 1 above, -1 below, 0 when cleared; the others are the event's.
    """

    to: str
    value: Literal["state", "count", "first", "last", "extreme"] = "state"
    labels: bool = True
    types: Annotated[frozenset[EventType], BeforeValidator(several), Field(min_length=1)] = frozenset(STATES)

    @field_validator("to")
    @classmethod
    def _to(cls, to: str) -> str:
        if to == CODE or to.count(CODE) > 1:
            raise ValueError("must be another metric than the event's own, such as alarms or {code}.alarm")
        try:
            return check_code(to)
        except InvalidInputError as exc:
            raise ValueError(exc.message) from None

    @field_validator("types")
    @classmethod
    def _types(cls, types: frozenset[EventType]) -> frozenset[EventType]:
        if not types <= STATES.keys():
            raise ValueError("must be about readings: " + ", ".join(sorted(STATES)))
        return types


class Target:
    """The metrics that ``to`` may name."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._pattern = re.compile(".+".join(map(re.escape, to.split(CODE))), re.DOTALL)

    def code(self, code: str) -> str:
        return self._to.replace(CODE, code)

    def covers(self, code: str) -> bool:
        return self._pattern.fullmatch(code) is not None


class RecordHandler(Handler):
    """``targets`` are those of all handlers of the kind, this one's among them."""

    def __init__(self, options: RecordOptions, tools: Tools, targets: list[Target]) -> None:
        self._options = options
        self._record = tools.record
        self._target = Target(options.to)
        self._targets = targets
        targets.append(self._target)

    async def handle(self, event: Event) -> None:
        code: str = event.data["metric"]["code"]
        if any(target.covers(code) for target in self._targets):
            return
        if event.data["late"] and self._options.value == "state":
            return  # a late reading leaves the state as it is
        at_us = parse_rfc3339(event.data["readings"]["last"]["reading_at"])
        labels = tuple(sorted(event.data["labels"].items())) if self._options.labels else ()
        try:
            await self._record(event.org, self._target.code(code), self._value(event), at_us, labels)
        except MeteriteError as exc:
            raise (Retry if exc.again else Refused)(exc.message) from None

    def _value(self, event: Event) -> float:
        name = self._options.value
        if name == "state":
            return STATES[EventType(event.type)]
        found = event.data["readings"][name]
        return float(found if name == "count" else found["reading"])


def _make(options: RecordOptions, tools: Tools) -> Handler:
    return RecordHandler(options, tools, tools.shared.setdefault("record", []))


@hookimpl
def meterite_handler_kinds() -> Mapping[str, Kind[Any]]:
    return {"record": Kind(RecordOptions, _make)}
