"""What a store is: the two Protocols that everything above storage is written against, and their plain data.

All calls block; the services above run them on worker threads. Every call names its org, and nothing of another org
is ever seen. Errors are :mod:`meterite.model.errors`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from meterite.model.columns import Batch, Columns, Labels, Single, type_i64
    from meterite.model.metric import Metric, MetricSpec, MetricState


@dataclass(slots=True)
class Append:
    """One request's readings on their way into a commit.

    ``version`` is the catalogue version at which they were resolved. ``at_us`` of a row is ``NO_TIME`` where the
    commit gives the time. ``compare`` (never with a Single) asks for ``replaced`` and ``unchanged``. After the commit
    either ``error`` is set, or ``recorded_at_us`` (and ``given_us``, the first time given, where any was).
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
    error: Exception | None = None


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

    @property
    def seq(self) -> int: ...

    def gaps(self, span: Span) -> list[str]:
        """A sentence for each damaged row that touches the span."""
        ...

    def cuts(self, span: Span, target: int) -> list[tuple[int, int]]:
        """Time slices (both ends included), ascending, of about ``target`` readings each."""
        ...

    def scan(self, span: Span) -> Iterator[Columns]:
        """The readings of the span, resolved, sorted by (series, at), in chunks. DamagedError on a new damage."""
        ...

    def recorded_at(self, seq: type_i64) -> type_i64:
        """When the commits were made, µs."""
        ...

    def close(self) -> None: ...


class Readings(Protocol):
    """Readings of all orgs: appended in commits, erased by tombstones, read through views."""

    def commit(self, appends: Sequence[Append]) -> None:
        """All that is waiting, in one transaction; each append learns its own fate."""
        ...

    def erase(self, org_id: int, metric: Metric, at_first: int, at_last: int, labels: Labels) -> int:
        """Hide a range from now on; answers when it was committed, µs."""
        ...

    def view(self, org_id: int) -> View:
        """A snapshot of now; to be closed."""
        ...

    def span(self, metric: Metric, start_us: int | None, end_us: int | None, labels: Labels) -> Span:
        """The metric's series that carry all of the labels, from ``start_us`` on and before ``end_us``."""
        ...

    def states(self, org_id: int, metric_ids: NDArray[np.int64]) -> list[MetricState]:
        """Current and last of each metric, as of now."""
        ...


class Catalog(Protocol):
    """Metrics and series of all orgs."""

    def org_id(self, org: str) -> int: ...

    def version(self) -> int: ...

    def changed(self, since: int) -> tuple[int, list[tuple[int, str]]]:
        """The version now, and (org id, code) of each metric changed or deleted after ``since``."""
        ...

    def metric(self, org: str, code: str) -> Metric | None: ...

    def page(self, org: str, limit: int) -> list[Metric]: ...

    def create(self, org: str, spec: MetricSpec) -> Metric: ...

    def update(self, org: str, code: str, changes: Mapping[str, object]) -> Metric: ...

    def set_active(self, org: str, code: str, *, active: bool) -> Metric: ...

    def delete(self, org: str, code: str) -> tuple[Metric, MetricState | None]: ...

    def series(self, org_id: int, metric: Metric, labels: Sequence[Labels]) -> list[int]:
        """Ids of the series, made where they aren't there yet."""
        ...

    def labels(self, series: Sequence[int]) -> dict[int, Labels]: ...


class Store(Readings, Protocol):
    """What the services run on: readings, metrics, and what a worker needs besides."""

    @property
    def catalog(self) -> Catalog: ...

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
