"""The thread that compacts, sweeps and checkpoints beside the requests; every worker has one, one at a time works.

Its errors harm nobody: they are logged, and it tries again later. It runs at a lower priority than the requests.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

import structlog

from meterite.model.errors import MeteriteError

if TYPE_CHECKING:
    from meterite.storage.interface import Store

IDLE_S: Final = 0.5
AFTER_ERROR_S: Final = 5.0
STOP_S: Final = 5.0
NICENESS: Final = 5

log = structlog.get_logger(__name__)


class Upkeep:
    """Started after the store is open, stopped before it is closed."""

    def __init__(self, store: Store) -> None:
        self._compaction = store.compaction()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="meterite-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for the step at hand, which ends soon; what it leaves is done again by the next process.

        Where it doesn't end, it keeps its lock: no other process compacts while this one still may write.
        """
        self._stopping.set()
        self._compaction.stop()
        self._thread.join(timeout=STOP_S)
        if self._thread.is_alive():
            log.warning("upkeep.still_at_work", waited_s=STOP_S)
        else:
            self._compaction.close()

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # Linux alone knows priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                pause = 0.0 if self._compaction.run_once() else IDLE_S
            except MeteriteError as exc:
                log.warning("upkeep.put_off", reason=exc.message)
                pause = AFTER_ERROR_S
            except Exception:
                log.exception("upkeep.failed")
                pause = AFTER_ERROR_S
