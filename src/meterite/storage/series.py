"""Metrics and series that readings make: as many as are allowed, in few transactions.

What this file guarantees: a series is made once, whoever asks; no org and no metric comes to hold more series than the
limits say, but for those of metrics that somebody registers, and who is refused is told which label has too many
values; a request that is refused whole has made nothing, however much it asked for and whoever else makes some
meanwhile. Making moves no catalogue version: nothing resolved before becomes wrong by it. Nobody waits for many series
of another org: they are looked up, judged and made in steps, each of some 0.1 s at most.

A metric counts as one series of its org from the start: that without labels. Who registers one waits for nobody and is
never refused for want of room: what was found to fit before is made all the same, as if it had come first.

Where a metric of the org is changed in the midst of a request, the request is resolved anew, and may be refused then
(its metric takes no readings any more, say) with what it made before left behind, which is the one exception. A request
that is told to come again, since the database wasn't to be had in the midst, leaves it, too, and goes on from there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from sqlalchemy import insert, select, update

from meterite.model.check import canonical_labels, parse_labels
from meterite.model.errors import ExhaustedError, metric_moved
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
    from meterite.storage.steps import Steps

CHUNK: Final = 500
STEP_SERIES: Final = 2000
"""As many are looked up, or made in one transaction, until others have their turn."""
STEP_METRICS: Final = 200
"""Of as many metrics: each costs statements of its own."""
_REFUSAL_COST: Final = 50
"""Of saying why a metric takes no more, in series that are counted."""
_LOOKED_AT: Final = 10_000
"""So many of metrics' newest series, in a request, tell which label has too many values."""
_LOOKED_AT_LEAST: Final = 100
"""As many of each metric's, however many came before it."""

_Named: TypeAlias = tuple[str, str]
"""A series by its metric's code and its labels as JSON, which is empty where there are none."""


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


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for, but for the series."""

    org_id: int
    specs: Mapping[str, MetricSpec]
    limits: SeriesLimits
    version: int

    def org(self, conn: Connection) -> Row[Any]:
        """MovedError."""
        row = conn.execute(select(org_table).where(org_table.c.id == self.org_id)).one()
        if row.catalog_version > self.version:
            raise metric_moved()
        return row


@dataclass(slots=True)
class _Plan:
    """What is to be made, and what is refused."""

    made: list[_Named] = field(default_factory=list)
    refused: dict[_Named, ExhaustedError] = field(default_factory=dict)
    looked_at: int = 0
    """Series that were read to say why others are refused."""


@dataclass(frozen=True, slots=True)
class _Full:
    """A metric that takes no more: how many series it holds, and whether its org is full rather than itself."""

    code: str
    metric_id: int | None
    held: int
    of_org: bool


class SeriesMaker:
    """``plain`` makes a metric's columns of its spec.

    Who makes series does so alone in its org, from looking whether they fit until the last is made: so many may take
    several transactions, between which readings are committed and others' series are made, but nobody else takes the
    room. The org's turn comes before the writers', never within it.
    """

    def __init__(self, database: Database, plain: Callable[[MetricSpec], dict[str, Any]]) -> None:
        self._database = database
        self._turns = OrgTurns(Path(f"{database.path}.series.lock"))
        self._plain = plain

    def close(self) -> None:
        self._turns.close()

    def making(
        self,
        org_id: int,
        keys: Sequence[SeriesKey],
        specs: Mapping[str, MetricSpec],
        limits: SeriesLimits,
        *,
        whole: bool,
        version: int,
    ) -> Steps[list[int | ExhaustedError]]:
        """An id a key, or why there is none. ``whole``: where one is refused, nothing is made.

        ``specs`` are those of metrics that may be made; a key of another one that isn't there has the id 0.
        MovedError where the org's catalogue changed after ``version``.
        """
        request = _Request(org_id, specs, limits, version)
        with translated():
            wanted = yield from _named(keys)
            yield from self._turns.take(org_id, LOCK_WAIT_S)
            try:
                outcomes = yield from self._outcomes(request, wanted, whole=whole)
            finally:
                self._turns.leave(org_id)
        return [outcomes.get(one, 0) for one in wanted]

    def _outcomes(
        self, request: _Request, wanted: list[_Named], *, whole: bool
    ) -> Steps[Mapping[_Named, int | ExhaustedError]]:
        """While the org's turn is ours."""
        ids: dict[_Named, int] = {}
        there: dict[str, tuple[int, int]] = {}
        missing: dict[str, dict[str, None]] = defaultdict(dict)
        for n, some in enumerate(_portions(wanted)):
            if n:
                yield 0.0
            with self._database.reading() as conn:
                request.org(conn)
                rows = _find(conn, request, some, ids)
            there.update((code, (row.id, row.series_next)) for code, row in rows.items())
            for code, text in some:
                if (code, text) not in ids and (code in rows or code in request.specs):
                    missing[code][text] = None
        plan = (yield from self._plan(request, missing, there)) if missing else _Plan()
        if not (whole and plan.refused):
            for n, some in enumerate(_portions(plan.made)):
                if n:
                    yield 0.0
                with self._database.writing() as conn:
                    self._make(conn, request, some, ids)
        if len(wanted) > STEP_SERIES:
            yield 0.0  # to make an answer of many takes a while, too
        return {**plan.refused, **ids} if plan.refused else ids

    def _plan(
        self, request: _Request, missing: Mapping[str, Iterable[str]], there: Mapping[str, tuple[int, int]]
    ) -> Steps[_Plan]:
        """Of the metrics that are ``there``, the id and the ordinal that comes next."""
        with self._database.reading() as conn:
            room = request.limits.org_series_max - request.org(conn).series_count
        plan = _Plan()
        cost = 0
        for code, wanted in missing.items():
            texts = list(wanted)
            metric_id, next_ = there.get(code, (None, 1))
            is_new = metric_id is None
            labelled = [text for text in texts if text]
            in_metric = request.limits.metric_series_max - next_
            fitting = max(0, min(in_metric, room - is_new, len(labelled)))
            refused = texts if is_new and room < 1 else labelled[fitting:]
            cost += len(texts) + (_REFUSAL_COST if refused else 0)
            if cost > 5 * STEP_SERIES:
                cost = 0
                yield 0.0
            if refused:
                full = _Full(code, metric_id, held=next_ - is_new, of_org=room - is_new < in_metric)
                self._refuse(plan, request, full, texts if is_new and room < 1 else labelled, refused)
            made = [(code, text) for text in labelled[:fitting]]
            if is_new and len(refused) < len(texts):
                made.insert(0, (code, ""))
            plan.made += made
            room -= len(made)
        return plan

    def _refuse(
        self, plan: _Plan, request: _Request, full: _Full, wanted: list[str], refused: list[str]
    ) -> None:
        """Some of what was wanted of a metric."""
        newest = max(_LOOKED_AT - plan.looked_at, _LOOKED_AT_LEAST)
        plan.looked_at += min(newest, len(wanted) + full.held)
        with self._database.reading() as conn:
            label = _exploding(conn, full.metric_id, wanted, newest)
        error = _too_many(full.code, label, request.limits, of_org=full.of_org)
        plan.refused.update(((full.code, text), error) for text in refused)

    def _make(self, conn: Connection, request: _Request, some: list[_Named], ids: dict[_Named, int]) -> None:
        """What of these isn't there; whether they fit was found out before. Adds to ``ids``."""
        request.org(conn)
        rows = _find(conn, request, some, ids)
        lacking = [code for code in dict.fromkeys(code for code, _ in some) if code not in rows]
        if lacking:
            self._make_metrics(conn, request.org_id, [request.specs[code] for code in lacking])
            rows |= _find(conn, request, [(code, "") for code in lacking], ids)
        by_code: dict[str, list[str]] = defaultdict(list)
        for code, text in some:
            if (code, text) not in ids:
                by_code[code].append(text)
        new = []
        for code, texts in by_code.items():
            row = rows[code]
            if row.series_next + len(texts) >= 1 << SERIES_ORDINAL_BITS:
                raise ExhaustedError("series-exhausted", "The metric can hold no more series.")
            first = row.id << SERIES_ORDINAL_BITS | row.series_next
            new += [
                {"id": first + n, "org": request.org_id, "metric": row.id, "labels": text}
                for n, text in enumerate(texts)
            ]
            ids.update(((code, text), first + n) for n, text in enumerate(texts))
            conn.execute(
                update(metric_table)
                .where(metric_table.c.id == row.id)
                .values(series_next=row.series_next + len(texts))
            )
        if new:
            conn.execute(insert(series_table), new)
        if lacking or new:
            count_series(conn, request.org_id, len(lacking) + len(new))

    def _make_metrics(self, conn: Connection, org_id: int, specs: list[MetricSpec]) -> None:
        version = read_clock(conn).catalog_version
        more = {"org": org_id, "active": True, "series_next": 1, "version": version}
        conn.execute(insert(metric_table), [self._plain(spec) | more for spec in specs])
        last = conn.execute(
            select(metric_table.c.id).order_by(metric_table.c.id.desc()).limit(1)
        ).scalar_one()
        if last > METRIC_ID_LAST:
            raise ExhaustedError("metrics-exhausted", "No more metrics can be numbered in this database.")


def _named(keys: Sequence[SeriesKey]) -> Steps[list[_Named]]:
    wanted: list[_Named] = []
    for start in range(0, len(keys), 5 * STEP_SERIES):
        if start:
            yield 0.0
        wanted += [
            (key.code, canonical_labels(key.labels) if key.labels else "")
            for key in keys[start : start + 5 * STEP_SERIES]
        ]
    return wanted


def _portions(series: Iterable[_Named]) -> Iterator[list[_Named]]:
    """In their order, as many as a step takes."""
    some: list[_Named] = []
    codes: set[str] = set()
    for one in series:
        if len(some) == STEP_SERIES or (len(codes) == STEP_METRICS and one[0] not in codes):
            yield some
            some, codes = [], set()
        some.append(one)
        codes.add(one[0])
    if some:
        yield some


def _find(
    conn: Connection, request: _Request, some: Iterable[_Named], ids: dict[_Named, int]
) -> dict[str, Row[Any]]:
    """The metrics that are there, by code; of these series and their metrics' own, those there are go to ``ids``."""
    by_code: dict[str, list[str]] = defaultdict(list)
    for code, text in some:
        by_code[code].append(text)
    rows = live_metrics(conn, request.org_id, list(by_code))
    for code, row in rows.items():
        ids[code, ""] = row.id << SERIES_ORDINAL_BITS
        known = known_series(conn, row.id, [text for text in by_code[code] if text])
        ids.update(((code, text), id_) for text, id_ in known.items())
    return rows


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
