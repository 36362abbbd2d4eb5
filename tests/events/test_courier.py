"""One handler's deliveries: what is claimed, and what each try comes to."""

from __future__ import annotations

from random import Random

import pytest

from events.given import RECORDED_AT_US, a_delivery
from events.outbox import FakeRoom, Time, deliveries
from meterite.events.configure import Configured
from meterite.events.courier import IDLE_S, LATE_S, RESULTS_WAIT_S, WINDOW_FIRST, WINDOW_LAST, Courier
from meterite.events.handler import Handler, HandlerOptions, Refused, Retry
from meterite.storage.event_interface import Outcome


class Place:
    """A courier with its room and its time."""

    def __init__(self, **options):
        self.time = Time()
        self.woken = 0
        options = HandlerOptions(**({"name": "ops", "kind": "test", "timeout": 10} | options))
        self.courier = Courier(Configured(options, Handler()), self.time.clock, Random(1), self._wake)
        self.room = self.courier.room = FakeRoom(self.time)
        self.room.courier = self.courier

    def _wake(self):
        self.woken += 1

    def results(self):
        """All that are ready, stored."""
        self.courier.collect()
        found = self.courier.results()
        self.courier.stored(found)
        return list(found)

    def one(self, error=None, **fields):
        """The result of one try."""
        self.courier.give([a_delivery(**fields)])
        self.room.end(self.room.begin(), error)
        (result,) = self.results()
        return result


def test_what_was_taken_is_done():
    """It is stored without a note, and the dispatcher is woken for it."""
    place = Place()
    result = place.one()
    assert (result.outcome, result.error, place.woken) == (Outcome.DONE, "", 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Retry("answered 503"), "answered 503"),
        (ValueError("bad\nluck"), "ValueError: bad luck"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (TimeoutError(), "took longer than 10 s"),
        (TimeoutError("connect"), "TimeoutError: connect"),
    ],
)
def test_what_failed_is_tried_again(error, reason):
    """Whatever was raised, with its reason in one line; the first time within five seconds."""
    result = Place().one(error)
    assert (result.outcome, result.error) == (Outcome.RETRY, reason)
    assert RECORDED_AT_US <= result.retry_at_us < RECORDED_AT_US + 4_000_000


class Unspeakable(BaseException):
    """Raises even where it is to say what it is."""

    def __str__(self):
        raise self


class Unmade(Retry):
    """A plug-in's own, without what a Retry has."""

    def __init__(self):
        pass


class Strange(Refused):
    """The same, with what can't be stored."""

    def __init__(self):
        self.reason = Unspeakable()


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (Unspeakable(), Outcome.RETRY, "Unspeakable"),
        (Unmade(), Outcome.RETRY, "Unmade"),
        (Retry("later", after_s="soon"), Outcome.RETRY, "later"),
        (Retry("later", after_s=float("nan")), Outcome.RETRY, "later"),
        (Retry("later", after_s=float("inf")), Outcome.RETRY, "later"),
        (Retry("later", after_s=-5), Outcome.RETRY, "later"),
        (Strange(), Outcome.DEAD, "Strange"),
    ],
)
def test_whatever_a_plug_in_raises_has_an_outcome(error, outcome, reason):
    """An exception that can't be asked what it says would else end the thread that delivers for all handlers."""
    result = Place().one(error)
    assert (result.outcome, result.error) == (outcome, reason)


def test_what_the_receiver_asks_for_is_respected():
    """Not before Retry-After."""
    result = Place().one(Retry("answered 429", after_s=120))
    assert result.retry_at_us >= RECORDED_AT_US + 120_000_000


def test_what_was_refused_is_dead():
    """At once, with the reason."""
    result = Place().one(Refused("answered 410"))
    assert (result.outcome, result.error) == (Outcome.DEAD, "answered 410")


def test_after_so_many_tries_it_is_dead():
    """The last of ``tries`` is the last; the one before isn't."""
    assert Place(tries=3).one(Retry("no"), attempts=1).outcome == Outcome.RETRY
    result = Place(tries=3).one(Retry("no"), attempts=2)
    assert (result.outcome, result.error) == (Outcome.DEAD, "given up after 3 tries: no")


def test_after_so_long_it_is_dead():
    """``give_up`` counts from the first try; a success at the last moment is one."""
    long_ago = {"attempts": 5, "first_at_us": RECORDED_AT_US - 3_600_000_000}
    assert Place(give_up="61m").one(Retry("no"), **long_ago).outcome == Outcome.RETRY
    assert Place(give_up="1h").one(Retry("no"), **long_ago).outcome == Outcome.DEAD
    assert Place(give_up="1h").one(**long_ago).outcome == Outcome.DONE


def test_what_ends_the_process_each_time_is_dead_in_the_end():
    """Tries are counted when they begin, so one that never came to an end counts, too; it isn't called again."""
    place = Place(tries=3)
    place.courier.give([a_delivery(attempts=3)])
    assert place.room.jobs == []
    (result,) = place.results()
    assert result.outcome == Outcome.DEAD


def test_what_cannot_be_ended_is_given_up():
    """After its timeout and a little more; its place stays taken until it comes back, and then counts for nothing."""
    place = Place(concurrency=1)
    place.courier.give([a_delivery()])
    (job,) = place.room.begin()
    place.time.now_s = 10 + LATE_S
    assert place.results() == []
    place.time.now_s += 0.1
    (result,) = place.results()
    assert (result.outcome, result.error) == (Outcome.RETRY, "took longer than 10 s, and can't be stopped")
    assert place.courier.vacancies() == 0
    place.room.end([job])
    assert place.results() == []
    assert place.courier.vacancies() > 0


def test_what_waited_too_long_for_its_turn_is_given_back():
    """It wasn't tried, so another worker may; the window gets smaller."""
    place = Place(concurrency=1)
    before = place.courier.vacancies()
    place.courier.give(deliveries(3))
    (running,) = place.room.begin(1)
    place.time.now_s = IDLE_S + 0.1
    place.courier.collect()
    place.time.now_s += 2 * RESULTS_WAIT_S
    assert [result.outcome for result in place.results()] == [Outcome.RELEASED] * 2
    assert place.room.begin() == []
    place.room.end([running])
    place.results()
    assert place.courier.vacancies() < before


def test_the_window_grows_with_what_is_done():
    """Up to its bound; no more than that is in memory."""
    place = Place(concurrency=256)
    assert place.courier.vacancies() == WINDOW_FIRST
    number = 0
    for _ in range(10):
        vacancies = place.courier.vacancies()
        place.courier.give([a_delivery(number + n) for n in range(vacancies)])
        number += vacancies
        place.room.end(place.room.begin())
        place.results()
    assert place.courier.vacancies() == WINDOW_LAST
    place.courier.give(deliveries(WINDOW_LAST))
    assert place.courier.vacancies() == 0
    assert len(place.courier.claimed) == WINDOW_LAST


def test_nothing_more_is_claimed_while_results_cannot_be_stored():
    """A database that is locked fills no memory."""
    place = Place(concurrency=256)
    for _ in range(100):
        place.courier.give(deliveries(max(0, place.courier.vacancies())))
        place.room.end(place.room.begin())
        place.courier.collect()
    assert len(place.courier.claimed) <= 2 * WINDOW_LAST
    assert place.courier.vacancies() == 0


def test_results_are_stored_together():
    """While others are under way they wait a moment for company, but no longer."""
    place = Place()
    place.courier.give(deliveries(2))
    first, second = place.room.begin()
    place.room.end([first])
    assert place.results() == []
    assert 0 < place.courier.looks_again_in_s() <= RESULTS_WAIT_S
    place.time.now_s += RESULTS_WAIT_S
    assert len(place.results()) == 1
    place.room.end([second])
    assert len(place.results()) == 1
    assert place.courier.looks_again_in_s() is None


def test_it_looks_when_the_first_retry_is_due():
    """To the moment, where that is sooner than the next look; once, for each."""
    place = Place()
    due_s = []
    for number in range(3):
        result = place.one(Retry("no"), number=number)
        due_s.append((result.retry_at_us - RECORDED_AT_US) / 1e6)
    assert place.courier.looks_again_in_s() == pytest.approx(min(due_s))
    place.time.now_s = 10.0
    assert place.courier.looks_again_in_s() == 0
    place.courier.vacancies()
    assert place.courier.looks_again_in_s() is None


def failing(place, count):
    """So many failures, one after the other."""
    for number in range(count):
        place.courier.give([a_delivery(number)])
        place.room.end(place.room.begin(), Retry("answered 500"))
        place.results()


def test_a_receiver_that_fails_is_let_be():
    """After ten failures nothing is claimed; what had not begun is given back untried; then one try decides."""
    place = Place()
    failing(place, 9)
    assert place.courier.vacancies() == WINDOW_FIRST
    place.courier.give(deliveries(3))
    place.room.end(place.room.begin(1), Retry("answered 500"))
    place.courier.collect()  # opens it
    place.courier.collect()  # and now the others go back
    outcomes = [result.outcome for result in place.courier.results()]
    assert outcomes == [Outcome.RETRY, Outcome.RELEASED, Outcome.RELEASED]
    place.courier.stored(place.courier.results())
    assert place.courier.vacancies() == 0
    place.time.now_s += place.courier.looks_again_in_s()
    assert place.courier.vacancies() == 1
    place.courier.give([a_delivery()])
    assert place.courier.vacancies() == 0
    place.room.end(place.room.begin())
    assert place.results()[0].outcome == Outcome.DONE
    assert place.courier.vacancies() > 1


def test_refusals_open_no_breaker():
    """The receiver is there and says what it doesn't want."""
    place = Place()
    for number in range(50):
        place.courier.give([a_delivery(number)])
        place.room.end(place.room.begin(), Refused("answered 400"))
        place.results()
    assert place.courier.vacancies() > 1


def test_a_room_that_takes_nothing():
    """Where no thread can be had, or a handler closed its own loop, the tries failed, and only those."""
    place = Place()

    def submit(jobs):
        place.room.jobs += jobs[:1]
        raise RuntimeError("can't start new thread")

    place.room.submit = submit
    place.courier.give(deliveries(3))
    (begun,) = place.room.jobs
    place.courier.collect()
    found = place.courier.results(all_of_them=True)
    assert {(result.outcome, result.error) for result in found} == {
        (Outcome.RETRY, "RuntimeError: can't start new thread")
    }
    assert len(found) == 3
    assert not begun.take()


def test_the_end():
    """First what wasn't begun is given back, then all; what comes later counts for nothing."""
    place = Place()
    place.courier.give(deliveries(3))
    (running,) = place.room.begin(1)
    place.courier.give_back(begun=False)
    assert place.room.begin() == []
    assert len(place.courier.results(all_of_them=True)) == 2
    assert place.courier.is_busy
    place.courier.give_back(begun=True)
    assert [result.outcome for result in place.courier.results()] == [Outcome.RELEASED] * 3
    assert not place.courier.is_busy
    place.courier.stored(place.courier.results())
    place.room.end([running])
    assert place.results() == []
