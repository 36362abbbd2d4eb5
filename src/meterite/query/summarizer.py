"""A metric's readings in a few numbers a step, computed on columns, chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import DamagedError
from meterite.query.summary import Aggregate, Summary

if TYPE_CHECKING:
    from meterite.catalog import Catalog
    from meterite.lanes import Lanes
    from meterite.model.columns import Labels
    from meterite.model.metric import Metric
    from meterite.query.steps import Steps
    from meterite.storage.interface import Span, Store, View

STEPS_MAX: Final = 100_000
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
        first, last = _extent(snapshot, span)
        whole = np.array([first, last + 1], np.int64)
        edges = whole if steps is None else steps.edges(first, last + 1, STEPS_MAX)
        aggregate = Aggregate(edges, fns)
        if last >= first:
            for chunk in snapshot.scan(span):
                aggregate.add(chunk.at_us, chunk.values, chunk.series)
        every, tz = (None, "UTC") if steps is None else (steps.name, steps.tz)
        return Summary.of(aggregate, every=every, tz=tz)


def _extent(snapshot: View, span: Span) -> tuple[int, int]:
    """The first and last time that can hold a reading: the span, cut to what is stored."""
    cuts = snapshot.cuts(span, 1 << 62)
    if not cuts:
        return 0, -1
    return cuts[0][0], cuts[-1][1]
