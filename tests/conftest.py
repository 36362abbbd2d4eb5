"""The modules that hold assertions without being named test_*: pytest explains theirs, too."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("storage.contract", "storage.machine", "storage.place")
