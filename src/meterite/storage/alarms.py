"""Alarms of an org: which series are outside their limits, and which metrics are silent.

What this file guarantees: both are what the org's event rows say, one after the other; nothing else is written for
them. A row that is damaged is left out: it was reported, and the series' next crossing puts its alarm right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meterite.model.errors import DamagedError
from meterite.model.event import EventType
from meterite.model.limits import Alarm
from meterite.storage.event_rows import decode_events, is_whole
from meterite.storage.schema import EVENT_ROW_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meterite.model.event_row import Document
    from meterite.storage.event_reader import EventReader


def fold_alarms(
    raw: sqlite3.Connection,
    reader: EventReader,
    org_id: int,
    after_seq: int,
    alarms: dict[int, Alarm],
    silent: set[int],
) -> None:
    """Bring both, true as of ``after_seq``, up to the connection's transaction; some alarms may be at rest then."""
    for *columns, checksum in reader.rows(raw, (after_seq + 1) << EVENT_ROW_BITS, org_id):
        if not is_whole(columns, checksum):
            continue
        try:
            transitions, documents, _ = decode_events(columns[-1])
        except DamagedError:
            continue
        apply_transitions(transitions, alarms)
        apply_documents(documents, silent)


def apply_transitions(transitions: NDArray[np.void], alarms: dict[int, Alarm]) -> None:
    """The last row of a series says how it stands."""
    series = transitions["series"]
    last = np.flatnonzero(np.append(series[1:] != series[:-1], np.ones(min(len(series), 1), bool)))
    for row in transitions[last].tolist():
        id_, _, _, state, pending, told, _, since_us, pending_since_us, *_ = row
        alarms[id_] = Alarm(state, since_us, pending, pending_since_us, told)


def apply_documents(documents: Sequence[Document], silent: set[int]) -> None:
    for document in documents:
        if document.type == EventType.SILENT:
            silent.add(document.metric_id)
        elif document.type == EventType.RESUMED:
            silent.discard(document.metric_id)
