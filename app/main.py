"""``app.main:app``, as the original named it; works from the repository's root, nothing installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("meterite") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from meterite.app import app

__all__ = ["app"]
