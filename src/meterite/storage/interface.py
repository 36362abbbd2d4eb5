"""What a store is: the Protocols that everything above storage is written against, and their plain data.

All calls block; the services above run them on worker threads. Every call names its org, and nothing of another org
is ever seen. Several workers have a store each on the same data: what one was told when its call returned, the others
answer from then on. Errors are :mod:`meterite.model.errors`'s; any call may raise UnavailableError.
``tests/storage/contract`` holds every backend to this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from meterite.model.columns import Batch, Columns, Described, Labels, SeriesKey, Single, type_i64
    from meterite.model.errors import ExhaustedError
    from meterite.model.metric import Metric, MetricSpec, MetricState
    from meterite.storage.event_interface import Events, Outbox
    from meterite.storage.once import KeptReceipt, Once
    from meterite.storage.steps import Steps


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
        """An active metric with an id that no metric ever had. ConflictError where the code is taken.

        No limit on series refuses it, and nobody who makes series keeps it waiting for long.
        """
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

    def making(
        self,
        org: str,
        keys: Sequence[SeriesKey],
        specs: Mapping[str, MetricSpec],
        limits: SeriesLimits,
        *,
        whole: bool,
        version: int,
    ) -> Steps[list[int | ExhaustedError]]:
        """A series id a key, made where it isn't there yet, or why there is none. In steps, since it may be many.

        ``specs`` are of the metrics that may be made, by code; a key of another one that isn't there has the id 0.
        ``whole``: where a key is refused, nothing is made. MovedError, and nothing is made, where the org's catalogue
        changed after ``version``; what was made before it changed stays.
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
