"""Which of a commit's events a request is told of."""

from __future__ import annotations

import numpy as np

from meterite.model.columns import Batch
from meterite.model.event import EventPlace, EventType, event_id
from meterite.model.event_row import Document
from meterite.model.limits import QUIET
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.model.standing import Judged
from meterite.storage.event_rows import EncodedEvents
from meterite.storage.interface import Append
from meterite.storage.raised import EVENTS_TOLD_MAX, Raised
from storage.raised import transition

M = 1 << SERIES_ORDINAL_BITS
AT = 1_700_000_000_000_000


def told(raised, *series):
    none = np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0)
    append = Append(1, 1, Batch(np.array(series, np.int64), *none), compare=True)
    raised.tell(append, append.batch.series)
    return append


def rows(*counts):
    return [EncodedEvents(0, 0, 0, count, b"") for count in counts]


def ids(*places):
    return [event_id(AT, EventPlace(*place)) for place in places]


def test_places():
    """Events lie one behind the other in the rows, the documents last; quiet transitions have a place and no event."""
    transitions = np.concatenate(
        [transition(M), transition(M + 1), transition(M + 1, flags=QUIET), transition(M), transition(2 * M)]
    )
    documents = [Document(EventType.RESUMED, 2, {}), Document(EventType.RESUMED, 1, {})]
    raised = Raised(1, AT, rows(2, 3, 2), Judged.of(transitions), documents, [70, 71, 72])
    assert told(raised, M).events == ids((70, 0), (71, 1), (72, 1))
    assert told(raised, M + 1).events == ids((70, 1), (72, 1))
    assert told(raised, 2 * M, 3 * M).events == ids((71, 2), (72, 0))
    assert told(raised, 3 * M).events == []


def test_bounded():
    """1,000 are told, the others counted."""
    raised = Raised(1, AT, rows(1500), Judged.of(np.concatenate([transition(M)] * 1500)), [], [70])
    append = told(raised, M)
    assert (len(append.events), append.events_more) == (EVENTS_TOLD_MAX, 500)
    assert append.events[-1] == ids((70, 999))[0]
