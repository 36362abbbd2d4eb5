"""What a store is: the Protocols that everything above storage is written against, and their plain data.

All calls block; the services above run them on worker threads. Every call names its org, and nothing of another org
is ever seen. Several workers have a store each on the same data: what one was told when its call returned, the others
answer from then on. Errors are :mod:`meterite.model.errors`'s; any call may raise UnavailableError.
``tests/storage/contract`` holds every backend to this.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from meterite.model.columns import Batch, Columns, Described, Labels, SeriesKey, Single, type_i64
    from meterite.model.errors import ExhaustedError
    from meterite.model.event import Event, EventPlace
    from meterite.model.event_row import EventRow, MetricName
    from meterite.model.limits import AlarmState
    from meterite.model.metric import Metric, MetricSpec, MetricState
    from meterite.storage.once import KeptReceipt, Once


@dataclass(frozen=True, slots=True)
class PushGroup:
    """Series that one source pushes together; ``name`` tells an org's groups apart.

    A commit adds the series that it brings. Of those that were in the group before and that it doesn't bring, it takes
    out all, or (``metrics``) those of the metrics that it does bring; each gets a stale marker.
    """

    name: str
    replaces: Literal["all", "metrics"]


@dataclass(slots=True)
class Append:
    """One request's readings on their way into a commit.

    ``version`` is the catalogue version at which they were resolved. ``at_us`` of a row is ``NO_TIME`` where the
    commit gives the time. ``compare`` (never with a Single) asks for ``replaced`` and ``unchanged`` (what
    :meth:`Readings.prepare` found for it is ``prepared``), and for the ids of the first 1,000 ``events`` about its
    series that the commit raised; ``events_more`` counts the others. ``group`` (never with a Single or ``compare``) is
    changed by the readings, even by none. ``once`` is kept with them. After the commit either ``error`` is set
    (MovedError where the catalogue of its org changed after ``version``, RepeatedError where its ``once`` was committed
    before), or ``recorded_at_us`` (and ``given_us``, the first time given, where any was). An ``abandoned`` one isn't
    written.
    """

    org_id: int
    version: int
    batch: Batch | Single
    compare: bool = False
    abandoned: bool = False
    recorded_at_us: int = 0
    given_us: int = 0
    replaced: int = 0
    unchanged: int = 0
    events: Sequence[str] = ()
    events_more: int = 0
    error: Exception | None = None
    prepared: object = None
    once: Once | None = None
    group: PushGroup | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """What to read: series ids and times, both ends included. ``series`` narrows to some ids (ascending)."""

    series_first: int
    series_last: int
    at_first: int
    at_last: int
    series: type_i64 | None = None


class View(Protocol):
    """A snapshot of one org's readings: fixed when taken, read in pieces without an open transaction."""

    def gaps(self, span: Span) -> list[str]:
        """A sentence for each damaged row that touches the span."""
        ...

    def cuts(self, span: Span, target: int) -> list[tuple[int, int]]:
        """Time slices (both ends included), ascending, of about ``target`` readings each; they hold all."""
        ...

    def scan(self, span: Span) -> Iterator[Columns]:
        """The readings of the span, resolved, sorted by (series, at), in chunks. DamagedError on a new damage."""
        ...

    def recorded_at(self, seq: type_i64) -> type_i64:
        """When the commits were made, µs; ``NO_TIME`` where damage took it. DamagedError on a new damage."""
        ...

    def doubts(self) -> list[str]:
        """A sentence where some of those times aren't known."""
        ...

    def close(self) -> None: ...


class Readings(Protocol):
    """Readings of all orgs: appended in commits, erased by tombstones, read through views."""

    def commit(self, appends: Sequence[Append]) -> None:
        """All that is waiting, in one transaction; each append learns its own fate.

        ``recorded_at_us`` is the clock's, but later than that of any commit before.
        """
        ...

    def prepare(self, append: Append) -> None:
        """Look up what a ``compare`` needs to know, beside the commits rather than in one, which does it otherwise."""
        ...

    def receipt(self, org_id: int, key: bytes) -> KeptReceipt | None:
        """What became of the append with this ``once.key``, for a day."""
        ...

    def erase(self, org_id: int, metric: Metric, at_first: int, at_last: int, labels: Labels) -> int:
        """Hide what was recorded up to now, both ends of the times included; answers when it was committed, µs."""
        ...

    def view(self, org_id: int) -> View:
        """A snapshot of now; to be closed."""
        ...

    def span(self, metric: Metric, start_us: int | None, end_us: int | None, labels: Labels) -> Span:
        """The metric's series that carry all of the labels, from ``start_us`` on and before ``end_us``."""
        ...

    def states(self, org_id: int, metric_ids: NDArray[np.int64]) -> list[MetricState]:
        """Current and last of each metric, as of now; both are None where the org has no such metric."""
        ...

    def gaps(self, org_id: int, metric_ids: NDArray[np.int64]) -> list[str]:
        """A sentence for each damaged row that may have held readings of these metrics.

        Asked after ``states`` it tells of all that those may lack.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLimits:
    """How many series an org may hold (a metric counts as one), and how many a metric."""

    org_series_max: int
    metric_series_max: int


class Catalog(Protocol):
    """Metrics and series of all orgs."""

    def org_id(self, org: str) -> int:
        """The org's number; the first use makes it."""
        ...

    def changed(self, since: int) -> tuple[int, list[tuple[int, str]]]:
        """The version now, and (org id, code) of each metric changed or deleted after ``since``."""
        ...

    def metric(self, org: str, code: str) -> Metric | None: ...

    def page(self, org: str, limit: int, after: int = 0) -> list[Metric]:
        """The first of the org's metrics by id, of those with an id above ``after``."""
        ...

    def create(self, org: str, spec: MetricSpec) -> Metric:
        """An active metric with an id that no metric ever had. ConflictError where the code is taken."""
        ...

    def update(self, org: str, code: str, changes: Mapping[str, object]) -> Metric:
        """Fields of the spec. NotFoundError; ConflictError for another ``on_conflict`` once there was a reading."""
        ...

    def set_active(self, org: str, code: str, *, active: bool) -> Metric:
        """NotFoundError; ConflictError where it is so already."""
        ...

    def delete(self, org: str, code: str) -> tuple[Metric, MetricState | None]:
        """The metric and its last state; its readings are hidden. NotFoundError; ConflictError while it is active."""
        ...

    def metrics(self, org: str, codes: Sequence[str]) -> list[Metric]:
        """Those of the codes that are there, in any order."""
        ...

    def describe(self, org: str, described: Mapping[str, Described]) -> None:
        """Fill in units and descriptions of metrics that have none."""
        ...

    def find_series(self, wanted: Sequence[tuple[int, Labels]]) -> list[int]:
        """Ids of series by metric id and labels; 0 where one isn't there."""
        ...

    def make(
        self,
        org: str,
        keys: Sequence[SeriesKey],
        specs: Mapping[str, MetricSpec],
        limits: SeriesLimits,
        *,
        whole: bool,
        version: int,
    ) -> list[int | ExhaustedError]:
        """A series id a key, made where it isn't there yet, or why there is none.

        ``specs`` are of the metrics that may be made, by code; a key of another one that isn't there has the id 0.
        ``whole``: where a key is refused, nothing is made. MovedError, and nothing is made, where the org's catalogue
        changed after ``version``.
        """
        ...

    def series(self, org_id: int, metric: Metric, labels: Sequence[Labels]) -> list[int]:
        """Ids of the metric's series, made where they aren't there yet, without limits."""
        ...

    def labels(self, series: Sequence[int]) -> dict[int, Labels]: ...


class Compaction(Protocol):
    """What is to be done beside the requests, in short steps. One thread steps; of all workers one at a time does."""

    def run_once(self) -> bool:
        """One step; whether there was anything to do."""
        ...

    def stop(self) -> None:
        """From any thread: let the step at hand end soon, and do nothing from then on."""
        ...

    def close(self) -> None: ...


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
        A page may hold fewer than ``limit`` and still have a next.
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


class Store(Readings, Protocol):
    """What the services run on: readings, metrics, and what a worker needs besides."""

    def open(self) -> bool:
        """Make or open what lies beneath; before all other calls, after the fork. Whether it was made, which one
        of several workers is told. SchemaTooNewError.
        """
        ...

    def close(self) -> None:
        """After all other calls; a second time does nothing."""
        ...

    def compaction(self) -> Compaction:
        """A worker's own; it may be asked for before the store is open."""
        ...

    @property
    def catalog(self) -> Catalog: ...

    @property
    def events(self) -> Events: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def clock(self) -> Callable[[], int]:
        """Now, µs since 1970."""
        ...

    def cookie_secret(self) -> bytes:
        """What signs the docs' cookies; one for all workers."""
        ...

    def problems(self) -> list[str]:
        """What stands in the way of work: sentences, none when all is well."""
        ...
