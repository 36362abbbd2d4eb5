"""When to try again."""

from __future__ import annotations

from random import Random

import pytest

from meterite.events.breaker import (
    FAILURES_IN_A_ROW,
    LAST_S,
    PAUSE_FIRST_S,
    PAUSE_LAST_S,
    WINDOW_S,
    Breaker,
    delay_s,
)

SEEDS = range(200)


def test_the_first_retry_comes_within_five_seconds():
    """With time left for looking and for the try; and it is spread over all of the time."""
    delays = [delay_s(1, Random(seed)) for seed in SEEDS]
    assert max(delays) < 4
    assert min(delays) < 0.2


@pytest.mark.parametrize(("attempts", "most"), [(2, 6), (3, 12), (8, 384), (10, LAST_S), (10**6, LAST_S)])
def test_delays_double_up_to_a_bound(attempts, most):
    """Full jitter: anywhere between none and the most."""
    delays = [delay_s(attempts, Random(seed)) for seed in SEEDS]
    assert max(delays) <= most
    assert max(delays) > 0.9 * most
    assert min(delays) < 0.1 * most


def test_what_the_receiver_asked_for_is_waited_for():
    """Never less, a little more; and a day at most."""
    delays = [delay_s(1, Random(seed), 120) for seed in SEEDS]
    assert min(delays) >= 120
    assert max(delays) <= 132
    assert delay_s(1, Random(0), 10**9) <= 86400 * 1.1
    assert delay_s(1, Random(0), 0) <= 3


def opened():
    breaker = Breaker(Random(1))
    for _ in range(FAILURES_IN_A_ROW - 1):
        assert not breaker.failure(0.0)
    assert not breaker.is_open
    assert breaker.failure(0.0)
    return breaker


def test_ten_failures_in_a_row_open_it():
    """The tenth does, no earlier one; then nothing is let through until its pause is over, and then one."""
    breaker = opened()
    assert breaker.is_open
    assert breaker.allows(0.0, 0) == 0
    assert breaker.allows(PAUSE_FIRST_S, 0) == 1
    assert breaker.allows(PAUSE_FIRST_S, 1) == 0
    assert 0 < breaker.wakes_in_s(0.0) <= PAUSE_FIRST_S
    assert breaker.wakes_in_s(PAUSE_LAST_S) == 0


def test_a_success_closes_it():
    """Then all is let through, and the next pause is a short one again."""
    breaker = opened()
    assert breaker.success(2.0)
    assert (breaker.is_open, breaker.allows(2.0, 5), breaker.wakes_in_s(2.0)) == (False, None, None)
    assert not breaker.success(2.0)


def test_pauses_grow_up_to_a_bound():
    """Each failed try makes the pause longer; what was under way before it opened doesn't."""
    breaker = opened()
    before = breaker.wakes_in_s(0.0)
    breaker.failure(0.0)
    assert breaker.wakes_in_s(0.0) == before
    now_s, pauses = 0.0, []
    for _ in range(12):
        now_s += breaker.wakes_in_s(now_s)
        assert not breaker.failure(now_s)
        pauses.append(breaker.wakes_in_s(now_s))
    assert pauses[0] <= 2 * PAUSE_FIRST_S
    assert max(pauses) <= PAUSE_LAST_S
    assert min(pauses[-4:]) >= PAUSE_LAST_S / 2


@pytest.mark.parametrize("seed", range(3))
def test_who_fails_one_call_in_five_opens_none(seed):
    """However many calls there are."""
    random = Random(seed)
    breaker = Breaker(random)
    for call in range(200_000):
        if random.random() < 0.2:
            assert not breaker.failure(call / 1000)
        else:
            breaker.success(call / 1000)


def test_ten_failures_after_many_successes_are_no_majority():
    """In a row, but not most of the recent tries; they are once the good ones are long ago."""
    breaker = Breaker(Random(1))
    for _ in range(50):
        breaker.success(0.0)
    for _ in range(FAILURES_IN_A_ROW + 5):
        assert not breaker.failure(1.0)
    assert breaker.failure(WINDOW_S + 0.5)


def test_old_failures_are_forgotten():
    """Nine long ago and one now are not ten within the window."""
    breaker = Breaker(Random(1))
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failure(0.0)
    assert not breaker.failure(WINDOW_S + 1)
