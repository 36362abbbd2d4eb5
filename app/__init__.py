"""The original's place for the application, so that ``uvicorn app.main:app`` goes on working, nothing installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("meterite") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
