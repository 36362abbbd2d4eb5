"""Commits without end, through the compiled judge and the plain walk, whose outcomes must be the same to the bit.

    fuzz_standing.py LIBRARY SECONDS SEED

Run by ``test_standing.py`` with a library that was built with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sanitizers import load

VALUES = (-30.0, -10.0, -9.0, -0.0, 0.0, 5.0, 9.0, 10.0, 11.0, 30.0, 1e308, np.inf, -np.inf, np.nan)
LIMITS = (-np.inf, -10.0, 0.0, 10.0, np.inf)


def rule(kind):
    low, high = sorted(random.choices(LIMITS, k=2))
    return kind(
        low=low,
        high=high,
        hysteresis=random.choice((0.0, 0.0, 0.0, 2.5)),
        for_us=random.choice((0, 0, 0, 3)),
        every=random.random() < 0.3,
        mute_until_us=random.choice((0, 0, 0, 5, 2**62)),
    )


def batch(kind, rng, count, now):
    readings = random.choice((0, 1, 3, 20, 200))
    index = rng.integers(0, count, readings).astype(np.uint32)
    at_us = 10 * now + rng.integers(-5, 10, readings)
    if random.random() < 0.7:
        at_us.sort()
    values = rng.choice(VALUES if random.random() < 0.3 else VALUES[1:10], readings)
    return kind(np.arange(count) * 7, index, at_us.astype(np.int64), values)


def one_table(standing, series, rules, slots):
    room = len(series) + 3
    made = standing.Standing(np.zeros(room, standing.CALM), np.zeros(room, standing.WATCHED))
    made[slots] = standing.at_rest(series, rules)
    return made


def main(library, seconds, seed):
    load("meterite.model._standing", library)
    from meterite.model import standing
    from meterite.model.columns import Batch
    from meterite.model.limits import Rule

    assert standing.COMPILED
    random.seed(seed)
    rng = np.random.default_rng(int(seed))
    commits = events = 0
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        count = random.choice((1, 2, 5, 40))
        rules = [rule(Rule) for _ in range(count)]
        series = (np.arange(count) * 7).tolist()
        slots = rng.permutation(count + 3)[:count]
        tables = [one_table(standing, series, rules, slots) for _ in range(2)]
        unknown = random.random() < 0.3
        for now in range(random.choice((1, 5, 20))):
            if unknown:
                for table in tables:
                    table.calm["newest"][slots[now % count]] = standing.TIME_UNKNOWN
            some = batch(Batch, rng, count, now)
            found = []
            for compiled, table in zip((True, False), tables, strict=True):

                def look_up(asked, table=table, now=now):
                    table.calm["newest"][asked] = 10 * now

                how = {"rule_of": lambda one, rules=rules: rules[one // 7], "look_up": look_up, "now_us": now}
                found.append(standing.judge(some, slots, table, compiled=compiled, **how))
            assert found[0] == found[1], (some, rules, found)
            for part in ("calm", "rows"):
                one, other = (getattr(table, part) for table in tables)
                assert one.tobytes() == other.tobytes(), (part, some, rules, one, other)
            commits += 1
            events += len(found[0])
    print(f"{commits} commits, {events} events")


if __name__ == "__main__":
    main(*sys.argv[1:])
