"""What a write may rest on: a metric as it was looked up, unless it changed since."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import numpy as np
import pytest

from meterite import catalog
from meterite.model.columns import NO_TIME, Decoded, Described, SeriesKey
from meterite.model.errors import ConflictError, MovedError
from meterite.model.metric import MetricSpec
from meterite.service import Service
from meterite.settings import Settings

AT_US = 1_767_225_600_000_000


@pytest.fixture
def service(tmp_path):
    """That makes no metrics by itself."""
    return Service(
        Settings(
            _env_file=None,
            api_tokens={"sesame": "org_01"},
            database_url=f"sqlite:///{tmp_path}/m.db",
            auto_create="off",
        )
    )


def decoded(*codes):
    rows = len(codes)
    return Decoded(
        [SeriesKey(code) for code in codes],
        np.arange(rows, dtype=np.uint32),
        np.full(rows, AT_US),
        np.arange(rows, dtype=np.float64),
    )


def test_a_metric_that_another_worker_deactivated_takes_nothing(service):
    """Even where the same request names one that isn't known, so that the catalogue is read anew in its middle."""

    async def scenario():
        await service.open()
        try:
            await service.catalog.create("org_01", MetricSpec(code="A", name="A"))
            await service.recorder.record("org_01", decoded("A"))
            service.store.catalog.set_active("org_01", "A", active=False)  # as another worker does
            return await service.recorder.record("org_01", decoded("A", "unknown"), partial=True)
        finally:
            await service.close()

    receipt = asyncio.run(scenario())
    assert receipt.accepted == 0
    assert [r.code for r in receipt.rejected] == ["metric-inactive", "metric-not-found"]


def test_a_metric_at_hand_is_looked_up_again_once_it_changed(service):
    """Between look-up and push another request may have read the catalogue anew."""

    async def scenario():
        await service.open()
        try:
            await service.catalog.create("org_01", MetricSpec(code="A", name="A"))
            await service.recorder.record_one("org_01", "A", 1.0, AT_US)
            known = service.recorder.kept("org_01", "A")
            await service.catalog.set_active("org_01", "A", active=False)
            await service.catalog.refresh()
            with pytest.raises(MovedError):
                await service.recorder.push(known, known.metric.series_first, 2.0, AT_US)
        finally:
            await service.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("labels", [(), (("host", "a"),)])
def test_a_metric_that_changed_while_it_was_looked_up_takes_nothing(service, labels):
    """Read before another worker's change, at hand only after this worker learned of it: the change counts."""
    was_read, go_on = threading.Event(), threading.Event()

    async def scenario():
        await service.open()
        metrics_of = service.store.catalog.metrics

        def slow(org, codes):
            found = metrics_of(org, codes)
            was_read.set()
            go_on.wait(30)
            return found

        try:
            await service.catalog.create("org_01", MetricSpec(code="A", name="A"))
            service.store.catalog.metrics = slow
            first = asyncio.create_task(service.recorder.record_one("org_01", "A", 1.0, AT_US, labels))
            await asyncio.to_thread(was_read.wait, 30)
            service.store.catalog.set_active("org_01", "A", active=False)  # as another worker does
            await service.catalog.refresh()
            go_on.set()
            refused = [await asyncio.gather(first, return_exceptions=True)]
            refused += [
                await asyncio.gather(
                    service.recorder.record_one("org_01", "A", 2.0, AT_US, labels),
                    service.recorder.record("org_01", decoded("A")),
                    return_exceptions=True,
                )
            ]
            return refused, (await service.catalog.view("org_01", "A")).state.current
        finally:
            await service.close()

    ((first,), (second, receipt)), current = asyncio.run(scenario())
    assert [type(first), type(second)] == [ConflictError] * 2
    assert (receipt.accepted, current) == (0, None)


def test_series_pushed_out_of_memory_while_others_are_made(service, monkeypatch):
    """Each reading goes to the series it names, however little is kept."""
    monkeypatch.setattr(catalog, "SERIES_KEPT", 1)
    a, b, c = [(("host", name),) for name in "abc"]

    async def scenario():
        await service.open()
        try:
            await service.catalog.create("org_01", MetricSpec(code="A", name="A"))
            known = await service.catalog.known("org_01", "A")
            keys = [SeriesKey("A", labels) for labels in (c, b, a, ())]
            _, made = await service.catalog.make(
                "org_01", keys, {}, whole=True, version=service.catalog.kept.version
            )
            both = await asyncio.gather(
                service.catalog.resolve("org_01", keys[:1]),
                service.catalog.resolve("org_01", [keys[2], keys[3], keys[1]]),
            )
            return known, made, [one.ids for one in both]
        finally:
            await service.close()

    known, (c_id, b_id, a_id, _), both = asyncio.run(scenario())
    assert both == [[c_id], [a_id, known.metric.series_first, b_id]]


def test_times_that_the_server_gives_differ(service):
    """Within a series, also where many requests share one commit; across series they may be the same."""

    async def scenario():
        await service.open()
        try:
            await service.catalog.create("org_01", MetricSpec(code="A", name="A"))
            await service.recorder.record_one("org_01", "A", 0.0, None)
            pushes = [service.recorder.record_one("org_01", "A", float(n), None) for n in range(50)]
            return await asyncio.gather(*pushes)
        finally:
            await service.close()

    done = asyncio.run(scenario())
    assert len({one.reading_at_us for one in done}) == 50
    assert all(one.reading_at_us <= one.recorded_at_us for one in done)


@pytest.mark.parametrize("full", [False, True])
def test_the_receipt_counts_as_the_format_does(service, full):
    """Taken, refused whole, or nothing of it taken: places in ``rejected`` are lines where the decoder counts lines."""
    lines = dataclasses.replace(decoded("A", "unknown"), row=np.array([1, 7]), counted="line")
    none = dataclasses.replace(decoded("unknown"), row=np.array([7]), counted="line")

    async def scenario():
        await service.open()
        try:
            await service.catalog.create("org_01", MetricSpec(code="A", name="A"))
            record = service.recorder.record
            return [
                await record("org_01", lines, full=full),
                await record("org_01", lines, partial=True, full=full),
                await record("org_01", none, partial=True, full=full),
                await record("org_01", decoded("unknown")),
            ]
        finally:
            await service.close()

    receipts = asyncio.run(scenario())
    assert [(receipt.accepted, receipt.counted) for receipt in receipts] == [
        (0, "line"),
        (1, "line"),
        (0, "line"),
        (0, "index"),
    ]
    assert [receipt.rejected[0].index for receipt in receipts] == [7, 7, 7, 0]


@pytest.fixture
def making(tmp_path):
    """A service that makes metrics."""
    return Service(
        Settings(_env_file=None, api_tokens={"sesame": "org_01"}, database_url=f"sqlite:///{tmp_path}/m.db")
    )


def meanwhile(service, *, before=None, after=None):
    """What others do before and after the store makes metrics for the first time."""
    catalog = service.store.catalog
    making = catalog.making

    def racing(*args, **options):
        catalog.making = making
        if before is not None:
            before(catalog)
        made = yield from making(*args, **options)
        if after is not None:
            after(catalog)
        return made

    catalog.making = racing


def test_a_metric_that_another_made_meanwhile_truncates(making):
    """Its making was answered before the reading's commit."""
    spec = MetricSpec(code="A", name="A", truncate_reading_to="hour")
    late = dataclasses.replace(decoded("A"), at_us=np.array([AT_US + 1]))

    async def scenario():
        await making.open()
        try:
            meanwhile(making, before=lambda catalog: catalog.create("org_01", spec))
            await making.recorder.record("org_01", late)
            return (await making.catalog.view("org_01", "A")).state.current
        finally:
            await making.close()

    assert asyncio.run(scenario()).at_us == AT_US


def test_a_metric_that_another_deleted_meanwhile_is_made_again(making):
    """Between its making and the look at what was made."""

    def delete(catalog):
        catalog.set_active("org_01", "A", active=False)
        catalog.delete("org_01", "A")

    async def scenario():
        await making.open()
        try:
            meanwhile(making, after=delete)
            receipt = await making.recorder.record("org_01", decoded("A"))
            return receipt.accepted, (await making.catalog.view("org_01", "A")).state.current
        finally:
            await making.close()

    accepted, current = asyncio.run(scenario())
    assert (accepted, current.at_us) == (1, AT_US)


def test_metrics_that_are_truncated_each_in_its_own_way(service):
    """All rows of a request at once, whatever their order, those without truncation and without a time among them."""
    ways = [
        ("A", "hour", None),
        ("B", "day", "Europe/Berlin"),
        ("C", None, None),
        ("D", "hour", None),
        ("E", "day", None),
    ]
    rng = np.random.default_rng(5)
    index = rng.integers(0, len(ways), 200).astype(np.uint32)
    at_us = AT_US + rng.integers(0, 3 * 86_400_000_000, 200)
    at_us[:5], index[:5] = NO_TIME, range(5)
    many = Decoded([SeriesKey(code) for code, *_ in ways], index, at_us, np.ones(200))

    async def scenario():
        await service.open()
        try:
            for code, truncation, zone in ways:
                spec = MetricSpec(code=code, name=code, truncate_reading_to=truncation, timezone=zone)
                await service.catalog.create("org_01", spec)
            resolution = await service.catalog.resolve("org_01", many.keys)
            return resolution, service.recorder._truncate(many, resolution.metrics)
        finally:
            await service.close()

    resolution, truncated = asyncio.run(scenario())
    for (code, *_), at, was in zip([ways[n] for n in index], truncated.tolist(), at_us.tolist(), strict=True):
        truncation = resolution.metrics[code].truncation
        if truncation is None:
            assert at == was
        elif was == NO_TIME:
            assert truncation.one(at) == at
        else:
            assert truncation.one(was) == at


def test_what_is_refused_whole_describes_nothing(service):
    """What is taken does."""
    told = dataclasses.replace(decoded("A", "unknown"), described={"A": Described("ms", "How long.")})

    async def scenario():
        await service.open()
        try:
            await service.catalog.create("org_01", MetricSpec(code="A", name="A"))
            refused = await service.recorder.record("org_01", told)
            before = (await service.catalog.view("org_01", "A")).metric.spec.unit
            taken = await service.recorder.record("org_01", told, partial=True)
            after = (await service.catalog.view("org_01", "A")).metric.spec.unit
            return refused.accepted, before, taken.accepted, after
        finally:
            await service.close()

    assert asyncio.run(scenario()) == (0, None, 1, "ms")
