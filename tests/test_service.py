"""What a worker runs: that settings arrive where they hold."""

from __future__ import annotations

import asyncio

from meterite import service as service_module
from meterite.model.columns import Single
from meterite.model.metric import MetricSpec
from meterite.service import Service
from meterite.settings import Settings
from meterite.storage.event_rows import event_checksum
from meterite.storage.interface import Append


def test_as_many_commits_as_are_set_wait_in_the_journal(tmp_path):
    """``journal_rows_max`` commits of an org are compacted, one fewer are not."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    store = Service(
        Settings(_env_file=None, database_url=url, api_tokens={"a": "org"}, journal_rows_max=3)
    ).store
    store.open()
    org_id, metric = store.catalog.org_id("org"), store.catalog.create("org", MetricSpec(code="m", name="m"))
    compaction = store.compaction()
    for n in range(3):
        assert not compaction.run_once()
        store.commit([Append(org_id, store.catalog.changed(0)[0], Single(metric.series_first, n, 1.0))])
    assert compaction.run_once()
    view = store.view(org_id)
    assert sum(map(len, view.scan(store.span(metric, None, None, ())))) == 3
    view.close()
    with store.database.reading() as conn:
        assert conn.exec_driver_sql("SELECT sum(count) FROM run").scalar_one() == 3
    compaction.close()
    store.close()


def test_events_are_kept_for_as_long_as_is_set(tmp_path):
    """``events_keep`` of an hour: an older event goes, a newer one stays."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    service = Service(Settings(_env_file=None, database_url=url, api_tokens={"a": "org"}, events_keep="1h"))
    store = service.store
    store.open()
    store.catalog.create("org", MetricSpec(code="m", name="m"))
    store.catalog.update("org", "m", {"name": "old"})
    with store.database.writing() as conn:  # as if it had been two hours ago
        row = conn.exec_driver_sql("SELECT * FROM event").one()
        aged = (*row[:6], row.recorded_at - 7_200_000_000)
        checksum = event_checksum(*aged, row.data)
        conn.exec_driver_sql("UPDATE event_row SET recorded_at = ?, checksum = ?", (aged[6], checksum))
    store.catalog.update("org", "m", {"name": "new"})
    compaction = store.compaction()
    while compaction.run_once():
        pass
    assert [event.data["after"] for event in store.events.select("org").events] == [{"name": "new"}]
    compaction.close()
    store.close()


def test_a_new_database_is_told(tmp_path, monkeypatch):
    """With its path, where the service made it; not when it is opened again."""
    told = []
    monkeypatch.setattr(service_module.log, "info", lambda event, **fields: told.append((event, fields)))
    path = tmp_path / "m.db"

    async def opened():
        service = Service(Settings(_env_file=None, database_url=f"sqlite:///{path}", api_tokens={"a": "org"}))
        await service.open()
        await service.close()

    asyncio.run(opened())
    assert told == [("database.made", {"path": str(path)})]
    asyncio.run(opened())
    assert len(told) == 1
