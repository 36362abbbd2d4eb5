"""A metric's readings in a few numbers a step, computed on columns, chunk by chunk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import DamagedError, InvalidInputError
from meterite.query.summary import Aggregate, Summary
from meterite.storage.interface import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from meterite.catalog import Catalog
    from meterite.lanes import Lanes
    from meterite.model.columns import Labels
    from meterite.model.metric import Metric
    from meterite.query.steps import Steps
    from meterite.storage.interface import Store, View

STEPS_MAX: Final = 100_000
EXTENT_READINGS: Final = 65_536
DAMAGED_TRIES: Final = 64


class Summarizer:
    """Summaries over a snapshot of now."""

    def __init__(self, store: Store, catalog: Catalog, lanes: Lanes) -> None:
        self._store = store
        self._catalog = catalog
        self._lanes = lanes

    async def summarize(
        self,
        org: str,
        code: str,
        *,
        start_us: int | None,
        end_us: int | None,
        steps: Steps | None,
        fns: tuple[str, ...],
        labels: Labels,
    ) -> tuple[Summary, list[str]]:
        """The summary, and sentences about gaps. NotFoundError; InvalidInputError where it asks for too much."""
        view = await self._catalog.view(org, code)
        return await self._lanes.read(self._summarize, org, view.metric, start_us, end_us, steps, fns, labels)

    def _summarize(
        self,
        org: str,
        metric: Metric,
        start_us: int | None,
        end_us: int | None,
        steps: Steps | None,
        fns: tuple[str, ...],
        labels: Labels,
    ) -> tuple[Summary, list[str]]:
        span = self._store.span(metric, start_us, end_us, labels)
        org_id = self._store.catalog.org_id(org)
        for _ in range(DAMAGED_TRIES):  # each turn puts one more damaged row in quarantine
            snapshot = self._store.view(org_id)
            try:
                return self._over(snapshot, span, steps, fns), snapshot.gaps(span)
            except DamagedError:
                continue
            finally:
                snapshot.close()
        raise DamagedError("damaged", "Too many stored rows are damaged.")

    def _over(self, snapshot: View, span: Span, steps: Steps | None, fns: tuple[str, ...]) -> Summary:
        edges = _edges(snapshot, span, steps)
        aggregate = Aggregate(edges, fns)
        begin = edges[-1]
        if len(edges) > 1 and edges[-1] > edges[0]:
            for chunk in snapshot.scan(span):
                aggregate.add(chunk.at_us, chunk.values, chunk.series)
                begin = min(begin, chunk.at_us.min())
        if steps is not None:
            return Summary.of(aggregate, every=steps.name, tz=steps.tz)
        summary = Summary.of(aggregate, every=None, tz="UTC")
        # The one step begins with the first reading, not with that of another metric in the same row.
        return replace(summary, starts=np.full(len(summary.starts), begin, np.int64))


def _edges(snapshot: View, span: Span, steps: Steps | None) -> NDArray[np.int64]:
    """Of the steps that can hold a reading."""
    cuts = snapshot.cuts(span, EXTENT_READINGS)
    first, last = (cuts[0][0], cuts[-1][1]) if cuts else (0, -1)
    if steps is None:
        return np.array([first, last + 1], np.int64)
    try:
        return steps.edges(first, last + 1, STEPS_MAX)
    except (
        InvalidInputError
    ):  # the outermost rows hold other metrics' readings as well, and needn't hold this one's
        first = _outermost(snapshot, span, cuts, np.min)
        last = _outermost(snapshot, span, cuts[::-1], np.max)
        return steps.edges(first, last + 1, STEPS_MAX)


def _outermost(
    snapshot: View,
    span: Span,
    cuts: list[tuple[int, int]],
    of: Callable[[NDArray[np.int64]], np.int64],
) -> int:
    """The first or the last time of a reading."""
    for begin, end in cuts:
        part = Span(span.series_first, span.series_last, begin, end, span.series)
        found = [of(chunk.at_us) for chunk in snapshot.scan(part)]
        if found:
            return int(of(np.array(found, np.int64)))
    return 0
