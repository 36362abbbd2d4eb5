"""The part of a store's tests that is about metrics and series; ``store.py`` has the fixtures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest

from meterite.model.columns import Described, SeriesKey, Single
from meterite.model.errors import ConflictError, ExhaustedError, MovedError, NotFoundError
from meterite.model.metric import (
    ConflictPolicy,
    Metric,
    MetricSpec,
    MetricState,
    Notify,
    Point,
    made_by_readings,
)
from meterite.storage.interface import Append, SeriesLimits
from meterite.storage.steps import run_through

AT = 1_700_000_000_000_000
SPEC = MetricSpec(
    code="spec/ü",
    name="Every field",
    min_reading=-1.5,
    max_reading=2.5,
    truncate_reading_to="hour",
    unit="°C",
    description="said",
    timezone="Europe/Berlin",
    on_conflict=ConflictPolicy.SUM,
    notify=Notify.EVERY,
    hysteresis=0.25,
    outside_for="5m",
    expected_every="1h",
    mute_until_us=AT,
)
PLAIN = MetricSpec(code="plain", name="Plain")
A = (("host", "a"),)
B = (("host", "b"),)
ANY = 1 << 62
LIMITS = SeriesLimits(org_series_max=1000, metric_series_max=1000)


def push(store, org, metric):
    append = Append(
        store.catalog.org_id(org), store.catalog.changed(0)[0], Single(metric.series_first, AT, 1.0)
    )
    store.commit([append])
    assert append.error is None


def make(catalog, *args, **options):
    """All steps, one after the other."""
    return run_through(catalog.making(*args, **options))


def many(code, count):
    return [SeriesKey(code)] + [SeriesKey(code, (("n", str(n)),)) for n in range(count - 1)]


class CatalogTests:
    """Tests of ``Catalog``."""

    def test_orgs_have_numbers(self, store, start):
        """Made once, whoever asks; no two have one."""
        names = ["here", "there", "ö" * 50]
        ids = [store.catalog.org_id(name) for name in names]
        assert len(set(ids)) == 3
        assert [start().catalog.org_id(name) for name in names] == ids
        store.close()
        assert [start().catalog.org_id(name) for name in names] == ids

    def test_a_metric_is_what_it_was_made(self, store, start):
        """Every field, by every worker and after a restart."""
        assert all(getattr(SPEC, field.name) != field.default for field in fields(SPEC))
        made = store.catalog.create("here", SPEC)
        assert made == Metric(id=made.id, org="here", spec=SPEC)
        assert store.catalog.metric("here", SPEC.code) == made
        assert start().catalog.metric("here", SPEC.code) == made
        store.close()
        assert start().catalog.metric("here", SPEC.code) == made

    def test_a_code_is_taken_once_an_org(self, store):
        """ConflictError; another org's metric of that code is another one."""
        first = store.catalog.create("here", PLAIN)
        with pytest.raises(ConflictError) as caught:
            store.catalog.create("here", MetricSpec(code="plain", name="Second"))
        assert caught.value.code == "metric-exists"
        second = store.catalog.create("there", PLAIN)
        assert second.id != first.id
        assert store.catalog.metric("here", "plain") == first

    def test_pages_hold_the_orgs_own_by_id(self, store):
        """As many as asked for; those that were deleted are gone, those inactive aren't."""
        made = [store.catalog.create("here", MetricSpec(code=f"m{n}", name="")) for n in (3, 1, 2)]
        store.catalog.create("there", PLAIN)
        assert store.catalog.page("here", 10) == sorted(made, key=lambda m: m.id)
        assert store.catalog.page("here", 2) == made[:2]
        assert store.catalog.page("here", 1, made[0].id) == made[1:2]
        assert store.catalog.page("here", 2, made[2].id) == []
        assert store.catalog.page("nobody", 10) == []
        inactive = store.catalog.set_active("here", "m1", active=False)
        assert store.catalog.page("here", 10) == [made[0], inactive, made[2]]
        store.catalog.delete("here", "m1")
        assert store.catalog.page("here", 10) == [made[0], made[2]]

    def test_what_is_not_there(self, store):
        """Unknown, another org's, or deleted: all the same."""
        store.catalog.create("there", PLAIN)
        store.catalog.create("here", MetricSpec(code="gone", name=""))
        store.catalog.set_active("here", "gone", active=False)
        store.catalog.delete("here", "gone")
        for code in ("unknown", "plain", "gone"):
            assert store.catalog.metric("here", code) is None
            for change in (
                lambda code=code: store.catalog.update("here", code, {"name": "x"}),
                lambda code=code: store.catalog.set_active("here", code, active=False),
                lambda code=code: store.catalog.delete("here", code),
            ):
                with pytest.raises(NotFoundError) as caught:
                    change()
                assert caught.value.code == "metric-not-found"
        assert store.catalog.metric("there", "plain").spec == PLAIN

    def test_updating(self, store, start):
        """The fields named, None too, and no others; all workers see it."""
        made = store.catalog.create("here", SPEC)
        changed = store.catalog.update("here", SPEC.code, {"name": "New", "unit": None, "max_reading": 9.0})
        assert (changed.id, changed.spec.name, changed.spec.unit, changed.spec.max_reading) == (
            made.id, "New", None, 9.0,
        )  # fmt: skip
        assert changed.spec.description == SPEC.description
        assert start().catalog.metric("here", SPEC.code) == changed

    def test_a_policy_is_fixed_by_the_first_reading(self, store):
        """Until then it may change; afterwards it may be said again, and refused is all of the update."""
        metric = store.catalog.create("here", PLAIN)
        changed = store.catalog.update("here", "plain", {"on_conflict": ConflictPolicy.MAX})
        assert changed.spec.on_conflict is ConflictPolicy.MAX
        push(store, "here", metric)
        with pytest.raises(ConflictError) as caught:
            store.catalog.update("here", "plain", {"name": "x", "on_conflict": ConflictPolicy.SUM})
        assert caught.value.code == "policy-fixed"
        assert store.catalog.metric("here", "plain") == changed
        store.catalog.update("here", "plain", {"name": "New", "on_conflict": ConflictPolicy.MAX})
        assert store.catalog.metric("here", "plain").spec.name == "New"

    def test_activating(self, store, start):
        """There and back; ConflictError where it is so already."""
        made = store.catalog.create("here", PLAIN)
        assert made.active
        for active in (False, True):
            changed = store.catalog.set_active("here", "plain", active=active)
            assert changed == made.with_active(active) == start().catalog.metric("here", "plain")
            with pytest.raises(ConflictError) as caught:
                store.catalog.set_active("here", "plain", active=active)
            assert caught.value.code == ("metric-active" if active else "metric-inactive")

    def test_deleting(self, store):
        """Only what isn't active; the answer is the metric and its last state; its id is never used again."""
        metric = store.catalog.create("here", PLAIN)
        with pytest.raises(ConflictError) as caught:
            store.catalog.delete("here", "plain")
        assert caught.value.code == "metric-active"
        push(store, "here", metric)
        store.catalog.set_active("here", "plain", active=False)
        assert store.catalog.delete("here", "plain") == (
            metric.with_active(False),
            MetricState(Point(AT, 1.0)),
        )
        again = store.catalog.create("here", PLAIN)
        assert again.id > metric.id
        store.catalog.set_active("here", "plain", active=False)
        _, state = store.catalog.delete("here", "plain")
        assert state in {None, MetricState()}
        assert store.catalog.create("there", PLAIN).id > again.id

    def test_what_changed_since(self, store, start):
        """Each metric that was changed or deleted after a version, whoever did so; nothing for what was made."""
        here, there = store.catalog.org_id("here"), store.catalog.org_id("there")
        other = start()
        version, _ = store.catalog.changed(0)
        for org, code in (("here", "a"), ("here", "b"), ("here", "c"), ("there", "a")):
            other.catalog.create(org, MetricSpec(code=code, name=code))
        assert store.catalog.changed(version) == (version, [])
        other.catalog.update("here", "a", {"name": "x"})
        other.catalog.set_active("here", "b", active=False)
        between, changed = store.catalog.changed(version)
        assert between > version
        assert sorted(changed) == [(here, "a"), (here, "b")]
        other.catalog.delete("here", "b")
        other.catalog.set_active("there", "a", active=False)
        latest, changed = store.catalog.changed(between)
        assert latest > between
        assert sorted(changed) == sorted([(here, "b"), (there, "a")])
        assert sorted(store.catalog.changed(version)[1]) == sorted([(here, "a"), (here, "b"), (there, "a")])
        assert store.catalog.changed(latest) == (latest, [])

    def test_series_are_made_once(self, store, start):
        """Ids within the metric's, by whichever worker; that without labels is the first; labels come back."""
        metric = store.catalog.create("here", PLAIN)
        here = store.catalog.org_id("here")
        labels = [(), (("host", "a"),), (("host", "ä"), ("room", "1,2=\"'")), (("host", "a"),)]
        ids = store.catalog.series(here, metric, labels)
        assert ids[0] == metric.series_first
        assert ids[1] == ids[3]
        assert len(set(ids)) == 3
        assert all(metric.series_first <= id_ <= metric.series_last for id_ in ids)
        assert store.catalog.series(here, metric, labels[::-1]) == ids[::-1]
        assert start().catalog.series(here, metric, labels) == ids
        assert start().catalog.labels(ids) == dict(zip(ids, labels, strict=True))
        assert store.catalog.series(here, metric, []) == []
        assert store.catalog.labels([]) == {}

    def test_series_belong_to_their_metric(self, store):
        """The same labels of another metric are another series; many at a time are no matter."""
        metrics = [store.catalog.create(org, PLAIN) for org in ("here", "there")]
        labels = [(("n", str(n)),) for n in range(1200)]
        ids = [store.catalog.series(store.catalog.org_id(metric.org), metric, labels) for metric in metrics]
        assert len({*ids[0], *ids[1]}) == 2400
        assert store.catalog.labels(ids[1]) == dict(zip(ids[1], labels, strict=True))

    def test_workers_that_make_series_at_once(self, store, start):
        """All get the same ids."""
        metric = store.catalog.create("here", PLAIN)
        here = store.catalog.org_id("here")
        stores = [store, start()]
        labels = [(("n", str(n)),) for n in range(20)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda n: stores[n % 2].catalog.series(here, metric, labels), range(8)))
        assert all(ids == found[0] for ids in found)
        assert len(set(found[0])) == 20

    def test_metrics_and_series_are_made_together(self, store, start):
        """Of keys in any order; what is there stays, what isn't allowed has no id; another worker finds the same."""
        old = store.catalog.create("here", PLAIN)
        keys = [
            SeriesKey("new", A),
            SeriesKey(old.code),
            SeriesKey("new"),
            SeriesKey("nobody"),
            SeriesKey(old.code, A),
        ]
        specs = {"new": made_by_readings("new", Described("ms", "How long."))}
        ids = make(store.catalog, "here", keys, specs, LIMITS, whole=True, version=ANY)
        new = store.catalog.metric("here", "new")
        assert (new.spec.unit, new.spec.description) == ("ms", "How long.")
        assert ids[:4] == [new.series_first | 1, old.series_first, new.series_first, 0]
        assert ids[4] == old.series_first | 1
        other = start().catalog
        assert make(other, "here", keys, specs, LIMITS, whole=True, version=ANY) == ids
        assert other.find_series([(new.id, A), (old.id, ()), (old.id, B)]) == [ids[0], ids[1], 0]
        assert {metric.id for metric in other.metrics("here", ["new", old.code, "nobody"])} == {
            new.id,
            old.id,
        }
        assert store.catalog.metrics("there", ["new"]) == []

    def test_limits_on_series(self, store):
        """``whole``: nothing is made where one is refused; else as many as fit, in the order of the keys."""
        few = SeriesLimits(org_series_max=3, metric_series_max=2)
        keys = [SeriesKey("m", A), SeriesKey("m", B), SeriesKey("n", A), SeriesKey("o")]
        specs = {code: made_by_readings(code, None) for code in "mno"}
        refused = make(store.catalog, "here", keys, specs, few, whole=True, version=ANY)
        assert [isinstance(one, ExhaustedError) for one in refused] == [False, True, True, False]
        assert store.catalog.page("here", 10) == []
        made = make(store.catalog, "here", keys, specs, few, whole=False, version=ANY)
        assert [isinstance(one, ExhaustedError) for one in made] == [False, True, True, False]
        assert [metric.code for metric in store.catalog.page("here", 10)] == ["m", "o"]
        assert make(store.catalog, "here", keys[:1], {}, few, whole=True, version=ANY) == made[:1]

    def test_which_limit_is_named(self, store):
        """Where both stand in the way, the one with less room; the metric's where both have as little."""
        made = [SeriesKey("m"), SeriesKey("m", A)]
        specs = {code: made_by_readings(code, None) for code in "mn"}
        make(store.catalog, "here", made, specs, LIMITS, whole=True, version=ANY)
        more = [SeriesKey("m", (("host", str(n)),)) for n in range(3)]
        for org_max, metric_max, named in (
            (3, 4, "org"),
            (4, 3, "metric"),
            (2, 2, "metric"),
            (3, 3, "metric"),
        ):
            few = SeriesLimits(org_series_max=org_max, metric_series_max=metric_max)
            refused = make(store.catalog, "here", more, {}, few, whole=True, version=ANY)
            assert f"raise {named}_series_max." in refused[2].message
        (new,) = make(
            store.catalog,
            "here",
            [SeriesKey("n", A)],
            specs,
            SeriesLimits(org_series_max=2, metric_series_max=1),
            whole=True,
            version=ANY,
        )
        assert "raise org_series_max." in new.message

    def test_workers_that_need_the_same_room(self, store, start):
        """More than are made at once: one request has all of it, and the others, refused whole, made nothing."""
        stores = [store, start()]
        size = 4500
        few = SeriesLimits(org_series_max=size + 100, metric_series_max=size)

        def ask(n):
            code = f"m{n}"
            keys = many(code, size)
            specs = {code: made_by_readings(code, None)}
            return make(stores[n % 2].catalog, "here", keys, specs, few, whole=True, version=ANY)

        with ThreadPoolExecutor(4) as pool:
            asked = list(pool.map(ask, range(4)))
        served = [n for n, ids in enumerate(asked) if not any(isinstance(one, ExhaustedError) for one in ids)]
        assert [metric.code for metric in store.catalog.page("here", 10)] == [f"m{n}" for n in served]
        assert len(served) == 1
        rest = [SeriesKey(f"r{n}") for n in range(100)]
        specs = {key.code: made_by_readings(key.code, None) for key in rest}
        made = make(store.catalog, "here", rest, specs, few, whole=True, version=ANY)
        assert all(isinstance(one, int) for one in made)

    def test_many_series_are_made_in_steps(self, store, start):
        """Between any two others make series, register metrics and push; in its org nobody makes any meanwhile."""
        size = 4500
        few = SeriesLimits(org_series_max=size, metric_series_max=size)
        specs = {"m": made_by_readings("m", None)}
        known = store.catalog.create("there", PLAIN)
        steps = store.catalog.making("here", many("m", size), specs, few, whole=True, version=ANY)
        between = 0
        while True:
            try:
                assert next(steps) == 0
            except StopIteration as end:
                ids = end.value
                break
            between += 1
            other = start().catalog
            labels = (("n", str(between)),)
            assert make(other, "there", [SeriesKey(PLAIN.code, labels)], {}, LIMITS, whole=True, version=ANY)[
                0
            ]
            push(store, "there", known)
            more = other.making("here", [SeriesKey("o")], {}, few, whole=True, version=ANY)
            assert next(more) > 0
            more.close()
        assert between > 3
        (metric,) = store.catalog.metrics("here", ["m"])
        assert ids == [metric.series_first | n for n in range(size)]

    def test_a_metric_registered_between_the_steps(self, store, start):
        """It isn't refused, and neither is what was found to fit before; the org holds one more, as if it came last."""
        size = 4500
        few = SeriesLimits(org_series_max=size, metric_series_max=size)
        specs = {code: made_by_readings(code, None) for code in "mn"}
        keys = [*many("m", size - 1), SeriesKey("n")]
        steps = store.catalog.making("here", keys, specs, few, whole=True, version=ANY)
        while store.catalog.metric("here", "m") is None:
            next(steps)
        registered = start().catalog.create("here", MetricSpec(code="n", name="N"))
        start().catalog.create("here", PLAIN)
        ids = run_through(steps)
        assert all(isinstance(one, int) for one in ids)
        assert ids[-1] == registered.series_first
        (late,) = make(store.catalog, "here", [SeriesKey("m", A)], {}, few, whole=True, version=ANY)
        assert isinstance(late, ExhaustedError)

    def test_who_stops_between_the_steps_holds_nothing(self, store, start):
        """The next makes what is left, and finds what was made."""
        specs = {"m": made_by_readings("m", None)}
        limits = SeriesLimits(org_series_max=9000, metric_series_max=9000)
        keys = many("m", 4500)
        steps = store.catalog.making("here", keys, specs, limits, whole=True, version=ANY)
        while store.catalog.metric("here", "m") is None:
            next(steps)
        steps.close()
        ids = make(start().catalog, "here", keys, specs, limits, whole=True, version=ANY)
        (metric,) = store.catalog.metrics("here", ["m"])
        assert ids == [metric.series_first | n for n in range(4500)]

    def test_what_was_resolved_too_early_makes_nothing(self, store):
        """Where a metric changed meanwhile the request may be about to be refused: MovedError."""
        store.catalog.create("here", PLAIN)
        version = store.catalog.changed(-1)[0]
        store.catalog.set_active("here", PLAIN.code, active=False)
        specs = {"new": made_by_readings("new", None)}
        with pytest.raises(MovedError):
            make(store.catalog, "here", [SeriesKey("new")], specs, LIMITS, whole=True, version=version)
        assert store.catalog.metric("here", "new") is None

    def test_workers_that_make_metrics_at_once(self, store, start):
        """Each code becomes one metric, each series has one id, and they count once."""
        stores = [store, start()]
        keys = [SeriesKey(f"m{n % 5}", (("n", str(n)),)) for n in range(20)]
        specs = {f"m{n}": made_by_readings(f"m{n}", None) for n in range(5)}
        exact = SeriesLimits(org_series_max=25, metric_series_max=5)
        with ThreadPoolExecutor(4) as pool:
            found = list(
                pool.map(
                    lambda n: make(
                        stores[n % 2].catalog, "here", keys, specs, exact, whole=True, version=ANY
                    ),
                    range(8),
                )
            )
        assert all(ids == found[0] for ids in found)
        assert len(set(found[0])) == 20

    def test_what_is_lacking_is_filled_in(self, store):
        """Unit and description where there is none, and other workers learn of it; what a user said stays."""
        store.catalog.create("here", PLAIN)
        version = store.catalog.changed(-1)[0]
        store.catalog.describe("here", {PLAIN.code: Described("s", "First."), "nobody": Described("s")})
        latest, changed = store.catalog.changed(version)
        assert changed == [(store.catalog.org_id("here"), PLAIN.code)]
        store.catalog.describe("here", {PLAIN.code: Described("h", "Second.")})
        assert store.catalog.changed(latest) == (latest, [])
        spec = store.catalog.metric("here", PLAIN.code).spec
        assert (spec.unit, spec.description) == ("s", "First.")
