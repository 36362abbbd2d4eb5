"""What a write may rest on: a metric as it was looked up, unless it changed since."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from meterite.model.columns import Decoded, SeriesKey
from meterite.model.errors import MovedError
from meterite.model.metric import MetricSpec
from meterite.service import Service
from meterite.settings import Settings

AT_US = 1_767_225_600_000_000


@pytest.fixture
def service(tmp_path):
    return Service(Settings(api_tokens={"sesame": "org_01"}, database_url=f"sqlite:///{tmp_path}/m.db"))


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
