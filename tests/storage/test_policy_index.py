"""Policies in memory: as the table has them, whoever changed it, and without reading it all again."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from meterite.model.metric import ConflictPolicy, MetricSpec
from meterite.storage import policy_index
from meterite.storage.policy_index import PolicyIndex
from meterite.storage.resolve import POLICY_KINDS
from storage.place import YEAR_2030, Clock, push, read
from storage.sqlite_place import sqlite_place

POLICIES = list(ConflictPolicy)


@pytest.fixture
def place():
    with sqlite_place() as place:
        yield place


@pytest.fixture
def start(place):
    stores = []

    def start():
        store = place.store(Clock())
        store.open()
        stores.append(store)
        return store

    yield start
    for store in stores:
        store.close()


def create(store, org, code, policy):
    return store.catalog.create(org, MetricSpec(code=code, name=code, on_conflict=policy))


def policies_of(store, org_id):
    view = store.view(org_id)
    view.close()
    return dict(zip(view.policies.metrics.tolist(), view.policies.kinds.tolist(), strict=True))


def policies_in_table(store, org_id):
    with store.database.reading() as conn:
        rows = conn.exec_driver_sql("SELECT id, on_conflict FROM metric WHERE org = ?", (org_id,)).all()
    return {id_: POLICY_KINDS[ConflictPolicy(policy)] for id_, policy in rows if policy != "last"}


def test_as_the_table_has_them(start):
    """Whatever was made, changed, deactivated or deleted, by this worker or another, in this org or another."""
    store, other = start(), start()
    orgs = {name: store.catalog.org_id(name) for name in ("here", "there")}
    for n in range(40):
        org = ("here", "there")[n % 2]
        worker = (store, other)[n // 2 % 2]
        create(worker, org, f"m{n}", POLICIES[n % 5])
        if n % 3 == 0:
            worker.catalog.update(org, f"m{n}", {"on_conflict": POLICIES[n % 4 + 1]})
        if n % 7 == 0:
            worker.catalog.update(org, f"m{n}", {"on_conflict": ConflictPolicy.LAST})
        if n % 5 == 0:
            worker.catalog.set_active(org, f"m{n}", active=False)
            worker.catalog.delete(org, f"m{n}")
        for looking in (store, other)[: 1 + n % 2]:
            for org_id in orgs.values():
                assert policies_of(looking, org_id) == policies_in_table(looking, org_id)


def test_an_older_snapshot_may_ask_last(start):
    """Newer policies serve it, and what it read doesn't take their place."""
    store, other = start(), start()
    org_id = store.catalog.org_id("here")
    create(store, "here", "a", ConflictPolicy.SUM)
    index = PolicyIndex()
    with store.database.reading() as conn:
        store.catalog.changed(0)  # the transaction's snapshot is taken by its first statement
        create(other, "here", "b", ConflictPolicy.MIN)
        other.catalog.update("here", "b", {"on_conflict": ConflictPolicy.MAX})
        with other.database.reading() as newer:
            assert len(index.policies(newer, org_id, 1, 2).metrics) == 2
        assert len(index.policies(conn, org_id, 0, 1).metrics) == 2
    assert index._orgs[org_id].version == 1
    fresh = PolicyIndex()
    with store.database.reading() as conn:
        assert fresh.policies(conn, org_id, 1, 2).metrics.tolist() == [1, 2]


def test_nothing_is_read_where_nothing_changed(start):
    """Nor all anew where something did: 100,000 metrics cost a snapshot 250 ms."""
    store = start()
    org_id = store.catalog.org_id("here")
    metric = create(store, "here", "a", ConflictPolicy.SUM)
    statements = []

    @contextmanager
    def traced():
        with store.database.reading() as conn:
            conn.connection.dbapi_connection.set_trace_callback(statements.append)
        yield
        with store.database.reading() as conn:
            conn.connection.dbapi_connection.set_trace_callback(None)

    policies_of(store, org_id)
    with traced():
        policies_of(store, org_id)
        push(store, org_id, (metric.series_first, YEAR_2030, 1.0))
        read(store, org_id)
        create(store, "here", "b", ConflictPolicy.SUM)
        policies_of(store, org_id)
    asked = [statement for statement in statements if "on_conflict FROM metric" in statement]
    assert [statement.split(" WHERE ")[1] for statement in asked] == [
        f"org = {org_id} AND version > 0",
        f"id > 1 AND +org = {org_id}",
    ]


def test_what_is_kept_is_bounded(start, monkeypatch):
    """By metrics and by orgs; who was forgotten is read again."""
    store = start()
    orgs = {f"org{n}": store.catalog.org_id(f"org{n}") for n in range(6)}
    for org in orgs:
        for n in range(3):
            create(store, org, f"m{n}", ConflictPolicy.SUM)
    index = store.parts.policies
    monkeypatch.setattr(policy_index, "METRICS_KEPT", 7)
    for _ in range(2):
        for org_id in orgs.values():
            assert len(policies_of(store, org_id)) == 3
    assert len(index._orgs) == 2
    assert index._metrics == 6
    monkeypatch.setattr(policy_index, "ORGS_KEPT", 1)
    policies_of(store, 1)
    assert list(index._orgs) == [1]
