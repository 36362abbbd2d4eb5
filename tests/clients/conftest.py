"""A server for each module, what stands between it and a client, each thing that goes wrong in turn."""

from __future__ import annotations

import contextlib

import pytest

from clients.between import MATRIX, Between
from e2e.conftest import client, other, pytest_runtest_makereport, server, start

__all__ = ["client", "other", "pytest_runtest_makereport", "server", "start"]


@pytest.fixture
def between(server):
    """Makes proxies before the module's server, as :class:`Between` describes them; their faults fail the test."""
    with contextlib.ExitStack() as stack:
        yield lambda script=(), *paths: stack.enter_context(Between(server, script, *paths))


@pytest.fixture(params=MATRIX.values(), ids=MATRIX)
def script(request):
    """What goes wrong, each in a test of its own."""
    return request.param
