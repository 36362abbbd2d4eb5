"""The part of a store that is about events: asking for them, and the deliveries of each to each handler.

``storage/interface.py`` says what holds for all calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from meterite.model.columns import Labels
    from meterite.model.event import Event, EventPlace
    from meterite.model.event_row import EventRow, MetricName
    from meterite.model.limits import AlarmState


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, oldest first. ``acked_at_us`` is by id, of those that were. ``next`` goes on behind what was looked at;
    None where there was nothing to look at.
    """

    events: list[Event]
    acked_at_us: dict[str, int]
    next: str | None


@dataclass(frozen=True, slots=True)
class AlertReading:
    """What was last told of a series outside its limits: under ``change`` the crossing, under ``every`` the newest."""

    event_id: str
    low: float
    high: float
    last_at_us: int
    last: float
    extreme_at_us: int
    extreme: float


@dataclass(frozen=True, slots=True)
class Alert:
    """A series outside its limits, or a metric without readings (``state`` is None then)."""

    series: int
    """Its id, or that of the silent metric's series without labels. With ``silent`` it tells alerts apart."""
    metric_id: int
    metric: MetricName
    labels: Labels
    state: AlarmState | None
    since_us: int
    """Time of the reading with which it began; of a silence, when it was noticed."""
    reading: AlertReading | None
    """None where the metric was muted when it began and nothing was told since, or is silent."""

    @property
    def silent(self) -> bool:
        return self.state is None


class DeliveryState(StrEnum):
    """``pending`` is also what waits for a second try, or behind another of its series."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """One event's way to one handler. Times are µs, None for never (or, of ``due_at_us``, for no more)."""

    handler: str
    state: DeliveryState
    attempts: int
    due_at_us: int | None
    first_at_us: int | None
    done_at_us: int | None
    error: str | None


class Events(Protocol):
    """Events of all orgs. They are written with what they are about, in its transaction, and never change."""

    def select(
        self,
        org: str,
        *,
        after: str | None = None,
        types: Sequence[str] = (),
        metric: str | None = None,
        acked: bool | None = None,
        limit: int = 100,
    ) -> EventPage:
        """The org's events behind the cursor (an event's id, or ``next`` of a page). InvalidInputError for another.

        ``types`` are all where there is none; ``metric`` is a code; ``acked`` asks for those that were, or weren't.
        A page is full unless the end is reached, or much was looked at that isn't asked for; ``next`` goes on then.
        """
        ...

    def get(self, org: str, event_id: str) -> tuple[Event, int | None]:
        """The event, and when it was acknowledged, µs. NotFoundError."""
        ...

    def ack(self, org: str, event_id: str) -> int:
        """Acknowledge; answers when it was first done, µs. NotFoundError."""
        ...

    def newest(self) -> str:
        """A cursor behind all events of all orgs, cheap to ask for. Another text than before: there are new ones."""
        ...

    def alarmed(self) -> list[str]:
        """Orgs of which something is, or was told to be, outside its limits or silent."""
        ...

    def alerts(self, org: str, *, after: int = -1, limit: int = 1000) -> list[Alert]:
        """What is outside its limits or silent now, of metrics that are active, by ascending series.

        ``limit`` at most, of series behind ``after``; a metric's silence comes with its series without labels, and both
        are in one answer.
        """
        ...

    def deliveries(self, org: str, event_id: str) -> list[DeliveryStatus]:
        """By handler. NotFoundError where there is no such event."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that was claimed. ``attempts`` were made before; ``first_at_us`` is when the first was, or is now."""

    handler: str
    place: EventPlace
    event: Event
    attempts: int
    first_at_us: int


class Outcome(StrEnum):
    """What became of a try."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    RELEASED = "released"
    """It wasn't tried: somebody may claim it at once, or from ``retry_at_us`` on."""


@dataclass(frozen=True, slots=True)
class Result:
    """A claimed delivery's outcome. ``retry_at_us`` is when it is due again, where it is.

    ``error`` says what went wrong; with ``done`` why it was done without asking the handler.
    """

    delivery: Delivery
    outcome: Outcome
    retry_at_us: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class HandlerCounts:
    """``open``: pending, waiting or leased; ``behind``: event rows that were not yet looked at for it."""

    handler: str
    open: int
    dead: int
    behind: int


class Outbox(Protocol):
    """One delivery a handler an event: pending → leased → done | pending again | dead. Shared by all workers."""

    def register(self, handlers: Sequence[str]) -> None:
        """These are the handlers; a new one begins behind the newest event. Others' deliveries rest."""
        ...

    def reminds(self) -> bool:
        """Whether this worker is the one of all that reminds handlers. It stays so until it is closed, or dies."""
        ...

    def fan_out(
        self,
        handler: str,
        wanted: Callable[[EventRow], NDArray[np.bool_]],
        *,
        ordered: bool = False,
        limit: int = 1000,
    ) -> bool:
        """Look at up to ``limit`` events that the handler hasn't seen, and make deliveries of those that are wanted.

        ``wanted`` answers a mask by ordinal. Answers whether there may be more to look at. Nothing new costs a read.
        """
        ...

    def claim(self, owner: str, handler: str, limit: int) -> list[Delivery]:
        """Up to ``limit`` that are due, leased to the owner for 8 s. Of an ordered handler one a series at a time.

        What nobody renews or finishes in that time may be claimed again. Nothing due costs a read.
        """
        ...

    def renew(self, owner: str, deliveries: Sequence[Delivery]) -> None:
        """For 8 s from now. Those that somebody else claimed meanwhile stay his."""
        ...

    def finish(self, owner: str, results: Sequence[Result]) -> None:
        """All in one transaction. A dead one raises a ``delivery.dead`` event, unless it is one.

        Where somebody else claimed it meanwhile, only ``done`` counts.
        """
        ...

    def last_done(self, handler: str, deliveries: Sequence[Delivery]) -> list[int | None]:
        """When the handler last took an event of each one's series, µs. For ordered handlers only."""
        ...

    def supersede(self, owner: str, delivery: Delivery) -> bool:
        """Where there are newer ones of its series that nobody took yet: only the newest of them is to be delivered.

        Then this one and those between are done, with a note, and the newest may be claimed. Answers whether it was so.
        """
        ...

    def retry(self, org: str, event_id: str, handler: str) -> None:
        """A dead one is pending again, as if never tried. NotFoundError; ConflictError where it isn't dead."""
        ...

    def retry_dead(self, handler: str | None = None) -> int:
        """All dead ones, of one handler or of all; answers how many."""
        ...

    def counts(self) -> list[HandlerCounts]: ...
