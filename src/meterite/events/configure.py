"""Handlers made from the settings and from plug-ins.

What this file guarantees: what can't be used is one line that names the handler and the option and repeats no value
that may be a secret; all of it is found at the start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from meterite.events.handler import SECONDS, Handler, HandlerOptions, Interest, Kind
from meterite.model.errors import SettingsError
from meterite.model.near import HINT, near
from meterite.model.one_line import one_line
from meterite.model.unfit import why_unfit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meterite.events.handler import Tools
    from meterite.events.plugins import Call, Plugins
    from meterite.model.event import Event

PLUGIN: Final = "plugin"
PLUGIN_PREFIX: Final = "plugin:"
_UNFIT: Final = re.compile("[^A-Za-z0-9._:-]")
_PLUGIN_NAME_MAX: Final = 90


@dataclass(frozen=True, slots=True)
class Configured:
    """A handler, and what it was told."""

    options: HandlerOptions
    handler: Handler

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def interest(self) -> Interest:
        return Interest.of(self.options)


@dataclass(frozen=True, slots=True)
class GivenKind:
    """A kind, and the plug-in that gives it."""

    plugin: str
    kind: Kind[Any]


class _AsyncPlugin(Handler):
    """A plug-in's ``async def meterite_handle_event``."""

    def __init__(self, call: Call) -> None:
        self._run = call.run

    async def handle(self, event: Event) -> None:
        await self._run(event=event)


class _Plugin(Handler):
    """A plug-in's ``def meterite_handle_event``."""

    def __init__(self, call: Call) -> None:
        self._run = call.run

    def handle(self, event: Event) -> Any:
        return self._run(event=event)


def make_handlers(settings: Iterable[Mapping[str, Any]], plugins: Plugins, tools: Tools) -> list[Configured]:
    """One a setting, in the clear, and one a plug-in that handles events itself. SettingsError."""
    kinds = find_kinds(plugins)
    calls = {plugin_handler_name(call.plugin): call for call in plugins.calls("meterite_handle_event")}
    made: dict[str, Configured] = {}
    for setting in settings:
        name, kind = str(setting["name"]), str(setting["kind"])
        if kind == PLUGIN:
            made[name] = _of_plugin(setting, calls)
        elif kind in kinds:
            made[name] = _of_kind(setting, kinds[kind].kind, tools)
        else:
            raise _mistake(setting, _no_kind(kind, kinds, plugins))
    for name, call in calls.items():
        if name not in made:
            made[name] = Configured(HandlerOptions(name=name, kind=PLUGIN), _plugin_handler(call))
    return list(made.values())


def plugin_handler_name(plugin: str) -> str:
    """Under which its deliveries are kept."""
    return PLUGIN_PREFIX + _UNFIT.sub("_", plugin)[:_PLUGIN_NAME_MAX]


def find_kinds(plugins: Plugins) -> dict[str, GivenKind]:
    """By name; of two that give the same, the first has it. What fails is as if it weren't there, and told."""
    kinds: dict[str, GivenKind] = {}
    for call in plugins.calls("meterite_handler_kinds"):
        try:
            given = _checked(call.run(), [PLUGIN, *kinds])
        except Exception as exc:  # noqa: BLE001 - a plug-in may raise whatever it likes
            plugins.fail(call.plugin, exc)
        else:
            kinds |= {name: GivenKind(call.plugin, kind) for name, kind in given.items()}
    return kinds


def _checked(given: Any, taken: list[str]) -> dict[str, Kind[Any]]:
    kinds: dict[str, Kind[Any]] = dict(given)
    for name, kind in kinds.items():
        if not isinstance(name, str) or not isinstance(kind, Kind):
            raise TypeError(f"{name!r} is no name of a Kind")
        if not issubclass(kind.options, HandlerOptions):
            raise TypeError(f"the options of the kind {name!r} are no HandlerOptions")
        if name in taken:
            raise ValueError(f"another plug-in gives the kind {name!r}")
    return kinds


def _of_plugin(setting: Mapping[str, Any], calls: Mapping[str, Call]) -> Configured:
    call = calls.get(str(setting["name"]))
    if call is None:
        there_are = ", ".join(sorted(calls)) or "none"
        raise _mistake(setting, f"names no plug-in that handles events; there are {there_are}")
    return Configured(_options(setting, HandlerOptions), _plugin_handler(call))


def _plugin_handler(call: Call) -> Handler:
    return _AsyncPlugin(call) if call.is_async else _Plugin(call)


def _of_kind(setting: Mapping[str, Any], kind: Kind[Any], tools: Tools) -> Configured:
    options = _options(setting, kind.options)
    try:
        handler: object = kind.make(options, tools)
    except ValidationError as exc:
        why = f"can't be made: {exc.title} is not valid"  # its text holds values
    except ValueError as exc:
        why = one_line(str(exc))
    except Exception as exc:  # noqa: BLE001 - a plug-in may raise whatever it likes
        why = f"can't be made: {one_line(exc)}"
    else:
        if isinstance(handler, Handler):
            return Configured(options, handler)
        why = "can't be made: its kind made something else than a Handler"
    raise _mistake(setting, why)


def _options(setting: Mapping[str, Any], model: type[HandlerOptions]) -> HandlerOptions:
    try:
        return model.model_validate(dict(setting))
    except ValidationError as error:
        why = _first(error, model)
    # Outside of the handler: the original error must not travel along, it may hold values.
    raise _mistake(setting, why)


def _first(error: ValidationError, model: type[HandlerOptions]) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    name = place[0] if place else "the whole"
    if first["type"] == "missing":
        return f"needs {name}"
    if first["type"] == "extra_forbidden":
        return f"has no option {one_line(name)}; {_hint(name, model.model_fields)}"
    if first["type"] == "value_error":
        said = first["msg"].removeprefix("Value error, ")
        return one_line(f"{name}{':' if said[:1].isupper() else ''} {said}")
    if len(place) > 1:
        name = f"each of {name}"
    why = why_unfit(first["type"], first.get("ctx", {}), first["msg"])
    field = model.model_fields.get(name)
    unit = ", in seconds" if field is not None and SECONDS in field.metadata else ""
    return one_line(f"{name} {why}{unit}")


def _hint(name: str, known: Iterable[str]) -> str:
    there_are = tuple(sorted(known))
    meant = near(name, there_are, HINT)
    return f"did you mean {meant}?" if meant else f"there are {', '.join(there_are)}"


def _no_kind(name: str, kinds: Iterable[str], plugins: Plugins) -> str:
    return f"there is no kind {one_line(repr(name))}; {_hint(name, kinds)}{_failed(plugins)}"


def _failed(plugins: Plugins) -> str:
    names = [found.name for found in plugins.failed]
    return f"; not loaded: {', '.join(names)}" if names else ""


def _mistake(setting: Mapping[str, Any], why: str) -> SettingsError:
    return SettingsError("handlers", f"handlers {str(setting['name'])!r} ({setting['kind']}): {why}")
