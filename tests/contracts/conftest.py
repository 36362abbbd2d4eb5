"""The same servers as the tests from end to end use."""

from __future__ import annotations

from e2e.conftest import client, code, other, pytest_runtest_makereport, server, start

__all__ = ["client", "code", "other", "pytest_runtest_makereport", "server", "start"]
