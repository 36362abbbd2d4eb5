"""The conflict policies of an org's metrics, in memory: every snapshot needs them, and they hardly ever change.

What this file guarantees: every metric that has a reading in the snapshot has its policy. They may be newer than the
snapshot: a policy is fixed by the metric's first reading, so that to older readings newer policies say the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meterite.model.metric import ConflictPolicy
from meterite.storage.database import driver_of
from meterite.storage.resolve import POLICY_KINDS, Policies

if TYPE_CHECKING:
    from sqlalchemy import Connection

ORGS_KEPT: Final = 4096
METRICS_KEPT: Final = 1_000_000
"""Over all orgs; those that changed least recently go first."""

_ALL: Final = "SELECT id, on_conflict FROM metric WHERE org = ? AND on_conflict != ?"
_CHANGED: Final = "SELECT id, on_conflict FROM metric WHERE org = ? AND version > ?"
_NEW: Final = "SELECT id, on_conflict FROM metric WHERE id > ? AND +org = ?"
"""By id: making a metric moves no version."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """As of the org's ``catalog_version``, of metrics up to ``metric_last``."""

    version: int
    metric_last: int
    policies: Policies


class PolicyIndex:
    """Threads may ask at once; none waits for another's query."""

    def __init__(self) -> None:
        self._orgs: OrderedDict[int, _Kept] = OrderedDict()
        self._metrics = 0
        self._guard = threading.Lock()

    def policies(self, conn: Connection, org_id: int, version: int, metric_last: int) -> Policies:
        """``version`` is the org's catalogue version, ``metric_last`` the last metric's id, both as of the snapshot."""
        kept = self._orgs.get(org_id)
        if kept is not None and version <= kept.version and metric_last <= kept.metric_last:
            return kept.policies
        raw = driver_of(conn)
        if kept is None:
            rows = raw.execute(_ALL, (org_id, ConflictPolicy.LAST.value)).fetchall()
            policies = Policies.none()
        else:
            rows = raw.execute(_CHANGED, (org_id, kept.version)).fetchall()
            rows += raw.execute(_NEW, (kept.metric_last, org_id)).fetchall()
            policies = kept.policies
        found = _Kept(version, metric_last, policies.changed({id_: _kind(policy) for id_, policy in rows}))
        self._keep(org_id, found)
        return found.policies

    def _keep(self, org_id: int, found: _Kept) -> None:
        with self._guard:
            known = self._orgs.get(org_id)
            if known is not None and (known.version, known.metric_last) > (found.version, found.metric_last):
                return
            self._metrics += len(found.policies.metrics) - (len(known.policies.metrics) if known else 0)
            self._orgs[org_id] = found
            self._orgs.move_to_end(org_id)
            while len(self._orgs) > 1 and (len(self._orgs) > ORGS_KEPT or self._metrics > METRICS_KEPT):
                _, dropped = self._orgs.popitem(last=False)
                self._metrics -= len(dropped.policies.metrics)


def _kind(policy: str) -> int:
    return POLICY_KINDS[ConflictPolicy(policy)]
