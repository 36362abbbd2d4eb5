"""Runs all benchmarks, or those named, and prints one markdown table.

Each benchmark is a module with ``run(*, full) -> list[Row]``. Without ``--full`` the sizes are chosen so that all
of them take ten minutes at most; a row says how it was scaled.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import time

from benchmarks.measure import Row, markdown

NAMES = (
    "single_push",
    "connection_a_push",
    "append",
    "limits",
    "tiny_orgs",
    "compaction",
    "fair",
    "flood",
    "holds",
    "post_readings",
    "line_protocol",
    "otlp",
    "remote_write",
    "many_series",
    "exposition",
    "disk",
    "reading_back",
    "start",
    "deliveries",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--full", action="store_true", help="the full sizes; takes an hour and 20 GB")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark is named {unknown[0]!r}; there are {', '.join(NAMES)}")
    rows: list[Row] = []
    for name in arguments.names or NAMES:
        began = time.monotonic()
        found = importlib.import_module(f"benchmarks.{name}").run(full=arguments.full)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        print(markdown(found), file=sys.stderr, flush=True)
        rows += found
    print(f"{time.strftime('%Y-%m-%d')}, {_machine()}\n\n{markdown(rows)}")
    return 0


def _machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 -- not a file that is there everywhere by a path of ours
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{len(models)} × {models[0]}, Python {platform.python_version()}, Linux {platform.release()}"


if __name__ == "__main__":
    raise SystemExit(main())
