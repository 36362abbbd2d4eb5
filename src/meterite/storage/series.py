"""Metrics and series that readings make: as many as are allowed, in few transactions.

What this file guarantees: a series is made once, whoever asks; no org and no metric comes to hold more series than the
limits say, but for those of metrics that somebody registers, and who is refused is told which label has too many
values; a request that is refused whole has made nothing, however much it asked for and whoever else makes some
meanwhile. Making moves no catalogue version: nothing resolved before becomes wrong by it.

A metric counts as one series of its org from the start: that without labels. Who registers one is never refused for
want of room, nor because others make series: after ``REGISTER_WAIT_S`` it is made beside them. Where it takes the last
room of one that was found to fit, that one is refused with what it made before left behind, which is the one exception.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import insert, select, update

from meterite.model.check import canonical_labels, parse_labels
from meterite.model.errors import ExhaustedError, UnavailableError, metric_moved
from meterite.model.metric import METRIC_ID_LAST, SERIES_ORDINAL_BITS
from meterite.storage.database import translated
from meterite.storage.journal import read_clock
from meterite.storage.locks import LOCK_WAIT_S
from meterite.storage.org_turns import OrgTurns
from meterite.storage.schema import metric as metric_table
from meterite.storage.schema import org as org_table
from meterite.storage.schema import series as series_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from meterite.model.columns import Labels, SeriesKey
    from meterite.model.metric import MetricSpec
    from meterite.storage.database import Database
    from meterite.storage.interface import SeriesLimits

REGISTER_WAIT_S: Final = 0.5
"""As long as some 65,000 series take."""
CHUNK: Final = 500
_NEW_SERIES: Final = 2000
"""As many are made in one transaction."""
_LOOKED_AT: Final = 10_000
"""So many of metrics' newest series, in a request, tell which label has too many values."""
_LOOKED_AT_LEAST: Final = 100
"""As many of each metric's, however many came before it."""


def known_series(conn: Connection, metric_id: int, texts: Sequence[str]) -> dict[str, int]:
    """Ids of a metric's series by their labels as canonical JSON."""
    known: dict[str, int] = {}
    for start in range(0, len(texts), CHUNK):
        query = select(series_table.c.labels, series_table.c.id).where(
            series_table.c.metric == metric_id, series_table.c.labels.in_(texts[start : start + CHUNK])
        )
        known.update(cast("list[tuple[str, int]]", conn.execute(query).all()))
    return known


def live_metrics(conn: Connection, org_id: int, codes: Sequence[str]) -> dict[str, Row[Any]]:
    """Rows of the org's metrics by code."""
    found: dict[str, Row[Any]] = {}
    for start in range(0, len(codes), CHUNK):
        query = select(metric_table).where(
            metric_table.c.org == org_id,
            metric_table.c.code.in_(codes[start : start + CHUNK]),
            metric_table.c.deleted_at.is_(None),
        )
        found.update({row.code: row for row in conn.execute(query)})
    return found


@dataclass(slots=True)
class _Plan:
    """What is there, what is to be made, what is refused: by (code, labels as JSON; empty for none)."""

    ids: dict[tuple[str, str], int] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    series: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[tuple[str, str], ExhaustedError] = field(default_factory=dict)
    looked_at: int = 0
    """Series that were read to say why others are refused."""


class SeriesMaker:
    """``plain`` makes a metric's columns of its spec.

    Who makes series does so alone in its org, from looking whether they fit until the last is made: so many may take
    several transactions, between which readings are committed, but nobody else takes the room. The org's turn comes
    before the writers', never within it.
    """

    def __init__(self, database: Database, plain: Callable[[MetricSpec], dict[str, Any]]) -> None:
        self._database = database
        self._turns = OrgTurns(Path(f"{database.path}.series.lock"))
        self._plain = plain

    def close(self) -> None:
        self._turns.close()

    def make(
        self,
        org_id: int,
        keys: Sequence[SeriesKey],
        specs: Mapping[str, MetricSpec],
        limits: SeriesLimits,
        *,
        whole: bool,
        version: int,
    ) -> list[int | ExhaustedError]:
        """An id a key, or why there is none. ``whole``: where one is refused, nothing is made, but for what stood
        before a metric that was registered meanwhile took the last room.

        ``specs`` are those of metrics that may be made; a key of another one that isn't there has the id 0.
        MovedError where the org's catalogue changed after ``version``.
        """
        wanted = [(key.code, canonical_labels(key.labels) if key.labels else "") for key in keys]
        with translated(), self._turns.hold(org_id, LOCK_WAIT_S):
            with self._database.reading() as conn:
                plan = self._plan(conn, org_id, wanted, specs, limits, version)
            ids, refused = plan.ids, plan.refused
            missing = list(dict.fromkeys(one for one in wanted if one not in ids and one not in refused))
            if whole and refused:
                missing = []
            for start in range(0, len(missing), _NEW_SERIES):
                with self._database.writing() as conn:
                    plan = self._plan(
                        conn, org_id, missing[start : start + _NEW_SERIES], specs, limits, version
                    )
                    self._carry_out(conn, org_id, plan, specs)
                ids |= plan.ids
                refused |= plan.refused
                if whole and refused:
                    break
        outcomes: dict[tuple[str, str], int | ExhaustedError] = {**refused, **ids}
        return [outcomes.get(one, 0) for one in wanted]

    @contextlib.contextmanager
    def registering(self, org_id: int) -> Iterator[None]:
        """For whoever makes a metric that counts and isn't refused: alone in the org, or after a short wait not."""
        with contextlib.ExitStack() as turn:
            with contextlib.suppress(UnavailableError), translated():
                turn.enter_context(self._turns.hold(org_id, REGISTER_WAIT_S))
            yield

    def _plan(
        self,
        conn: Connection,
        org_id: int,
        wanted: Iterable[tuple[str, str]],
        specs: Mapping[str, MetricSpec],
        limits: SeriesLimits,
        version: int,
    ) -> _Plan:
        by_code: dict[str, dict[str, None]] = defaultdict(dict)
        for code, text in wanted:
            by_code[code][text] = None
        rows = live_metrics(conn, org_id, list(by_code))
        org = conn.execute(select(org_table).where(org_table.c.id == org_id)).one()
        if org.catalog_version > version:
            raise metric_moved()
        room = limits.org_series_max - org.series_count
        plan = _Plan()
        for code, texts in by_code.items():
            row = rows.get(code)
            if row is None and code not in specs:
                continue
            room -= self._plan_metric(conn, plan, code, row, [*texts], room, limits)
        return plan

    def _plan_metric(
        self,
        conn: Connection,
        plan: _Plan,
        code: str,
        row: Row[Any] | None,
        texts: list[str],
        room: int,
        limits: SeriesLimits,
    ) -> int:
        """How many series it will make."""
        labelled = [text for text in texts if text]
        known = known_series(conn, row.id, labelled) if row is not None else {}
        plan.ids |= {(code, text): id_ for text, id_ in known.items()}
        if row is not None:
            plan.ids[code, ""] = row.id << SERIES_ORDINAL_BITS
        missing = [text for text in labelled if text not in known]
        is_new = row is None
        in_metric = limits.metric_series_max - (1 if row is None else row.series_next)
        fitting = max(0, min(in_metric, room - is_new, len(missing)))
        if is_new and room < 1:
            fitting, missing = 0, texts
        elif is_new and (fitting or "" in texts):
            plan.metrics.append(code)
        if fitting:
            plan.series[code] = missing[:fitting]
        if fitting < len(missing):
            metric_id = None if row is None else row.id
            newest = max(_LOOKED_AT - plan.looked_at, _LOOKED_AT_LEAST)
            plan.looked_at += min(newest, len(missing) + (0 if row is None else row.series_next))
            label = _exploding(conn, metric_id, missing, newest)
            error = _too_many(code, label, limits, of_org=room - is_new < in_metric)
            plan.refused |= {(code, text): error for text in missing[fitting:]}
        return fitting + (is_new and code in plan.metrics)

    def _carry_out(self, conn: Connection, org_id: int, plan: _Plan, specs: Mapping[str, MetricSpec]) -> None:
        if plan.metrics:
            self._make_metrics(conn, org_id, [specs[code] for code in plan.metrics])
        codes = [*plan.metrics, *(code for code in plan.series if code not in plan.metrics)]
        rows = live_metrics(conn, org_id, codes)
        made = len(plan.metrics)
        for code in plan.metrics:
            plan.ids[code, ""] = rows[code].id << SERIES_ORDINAL_BITS
        new = []
        for code, texts in plan.series.items():
            row = rows[code]
            if row.series_next + len(texts) >= 1 << SERIES_ORDINAL_BITS:
                raise ExhaustedError("series-exhausted", "The metric can hold no more series.")
            first = row.id << SERIES_ORDINAL_BITS | row.series_next
            new += [
                {"id": first + n, "org": org_id, "metric": row.id, "labels": text}
                for n, text in enumerate(texts)
            ]
            plan.ids |= {(code, text): first + n for n, text in enumerate(texts)}
            conn.execute(
                update(metric_table)
                .where(metric_table.c.id == row.id)
                .values(series_next=row.series_next + len(texts))
            )
        if new:
            conn.execute(insert(series_table), new)
        if made + len(new):
            count_series(conn, org_id, made + len(new))

    def _make_metrics(self, conn: Connection, org_id: int, specs: list[MetricSpec]) -> None:
        version = read_clock(conn).catalog_version
        more = {"org": org_id, "active": True, "series_next": 1, "version": version}
        conn.execute(insert(metric_table), [self._plain(spec) | more for spec in specs])
        last = conn.execute(
            select(metric_table.c.id).order_by(metric_table.c.id.desc()).limit(1)
        ).scalar_one()
        if last > METRIC_ID_LAST:
            raise ExhaustedError("metrics-exhausted", "No more metrics can be numbered in this database.")


def count_series(conn: Connection, org_id: int, more: int) -> None:
    """So many series more (or fewer) in the org."""
    conn.execute(
        update(org_table).where(org_table.c.id == org_id).values(series_count=org_table.c.series_count + more)
    )


def _too_many(code: str, label: tuple[str, int], limits: SeriesLimits, *, of_org: bool) -> ExhaustedError:
    most = limits.org_series_max if of_org else limits.metric_series_max
    whose = "The org" if of_org else f"The metric {code[:60]!r}"
    setting = "org_series_max" if of_org else "metric_series_max"
    name, values = label
    hint = f" the label {name[:60]!r} has {values} values or more in this metric; drop it, or" if name else ""
    return ExhaustedError(
        "series-too-many", f"{whose} holds its {most} series already:{hint} raise {setting}."
    )


def _exploding(conn: Connection, metric_id: int | None, missing: list[str], newest: int) -> tuple[str, int]:
    """The label with the most values among the newest series and those that were wanted, and how many."""
    texts = missing[-newest:]
    if metric_id is not None:
        first = metric_id << SERIES_ORDINAL_BITS
        query = select(series_table.c.labels).where(
            series_table.c.id.between(first, first + (1 << SERIES_ORDINAL_BITS) - 1)
        )
        texts += conn.execute(query.order_by(series_table.c.id.desc()).limit(newest)).scalars()
    values: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        if text:
            for name, value in parse_labels(text):
                values[name].add(value)
    if not values:
        return "", 0
    name = max(values, key=lambda one: len(values[one]))
    return name, len(values[name])


def labels_of(conn: Connection, series: Sequence[int]) -> dict[int, Labels]:
    """The labels of series ids; a series without labels has none, and no row."""
    found: dict[int, Labels] = {}
    for start in range(0, len(series), CHUNK):
        query = select(series_table.c.id, series_table.c.labels).where(
            series_table.c.id.in_(series[start : start + CHUNK])
        )
        found.update({row.id: parse_labels(row.labels) for row in conn.execute(query)})
    return {id_: found.get(id_, ()) for id_ in series}
