"""Programs from Debian's packages that tests start for real: ``requirements/system.txt`` lists them."""

from __future__ import annotations

import os
import shutil

import pytest

SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def program(name, package=None):
    """Where the program is. Where it isn't, the test fails, unless it can't be had here: no apt-get, and no CI."""
    path = shutil.which(name, path=SEARCHED)
    if path is None:
        missing = f"{name} is missing: make setup-system, or apt-get install {package or name}"
        if shutil.which("apt-get") or os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path
