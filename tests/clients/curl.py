"""curl, which half of all clients are."""

from __future__ import annotations

import subprocess
import tempfile

from programs import program

RETRY = ("--retry", "8", "--retry-all-errors")


def curl(url, *arguments, body=None):
    """Its status, and for each answer its own and how many connections were made for it."""
    with tempfile.NamedTemporaryFile() as answer:  # curl can't empty /dev/null before it tries again
        done = subprocess.run(
            [
                program("curl"),
                "-sS",
                "-o",
                answer.name,
                "-w",
                "%{http_code} %{num_connects}\n",
                *arguments,
                url,
            ],
            input=None if body is None else body.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
    return done.returncode, done.stdout.decode().splitlines()
