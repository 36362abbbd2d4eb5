"""``app.main:app``, as the original named it; works from the repository's root, nothing installed."""

from __future__ import annotations

from meterite.app import app

__all__ = ["app"]
