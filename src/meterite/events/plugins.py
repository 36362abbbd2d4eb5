"""Plug-ins: found, loaded, registered, and what became of each.

What this file guarantees: a plug-in that fails to load, in whatever way, stops nobody else; it is in the report with
the reason in one line. With ``strict`` the first such one is a SettingsError. What comes with Meterite is loaded first
and goes through the same door.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pluggy

from meterite.events.hooks import PROJECT, Hooks
from meterite.events.plugins_dir import list_plugins, read_plugin
from meterite.model.errors import SettingsError
from meterite.model.one_line import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

GROUP: Final = "meterite"
SHIPPED: Final = tuple(
    f"meterite.events.handlers.{name}"
    for name in ("log", "webhook", "alertmanager", "apprise", "exec", "record")
)
HOOK_NAMES: Final = tuple(name for name in vars(Hooks) if name.startswith(f"{PROJECT}_"))
AT_ONCE: Final = ("meterite_filter_event", "meterite_handler_kinds", "meterite_register_cli")
"""Hooks whose answer is needed where they are called."""
_PACKAGE: Final = "meterite_plugins_dir"


@dataclass(frozen=True, slots=True)
class Found:
    """One plug-in of the report. ``error`` is one line, None where it was loaded."""

    name: str
    origin: str
    hooks: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One plug-in's implementation of a hook."""

    plugin: str
    run: Callable[..., Any]
    """Takes all the hook's arguments, by name."""
    is_async: bool


@dataclass(slots=True)
class Plugins:
    """Those that were loaded, and the report on all."""

    manager: pluggy.PluginManager
    found: list[Found] = field(default_factory=list)

    def calls(self, hook: str) -> list[Call]:
        """One by one and not by pluggy, where one plug-in's exception would keep the next from being called."""
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        return [
            Call(impl.plugin_name, partial(_call, impl), inspect.iscoroutinefunction(impl.function))
            for impl in caller.get_hookimpls()
        ]

    def fail(self, plugin: str, error: BaseException) -> None:
        """It was loaded, but something that it was asked for went wrong."""
        self.found = [
            replace(found, error=one_line(error)) if found.name == plugin and found.error is None else found
            for found in self.found
        ]

    @property
    def failed(self) -> list[Found]:
        return [found for found in self.found if found.error is not None]


def _call(impl: pluggy.HookImpl, **arguments: Any) -> Any:
    return impl.function(*(arguments[name] for name in impl.argnames))


def load_plugins(
    paths: Iterable[str] = (), directory: Path | None = None, *, strict: bool = False, shipped: bool = True
) -> Plugins:
    """All that can be found. SettingsError for a directory that can't be used, and with ``strict`` for any failure."""
    plugins = Plugins(pluggy.PluginManager(PROJECT))
    plugins.manager.add_hookspecs(Hooks)
    for name, origin, load in _sources(paths, directory, shipped=shipped):
        found = _add(plugins.manager, name, origin, load)
        plugins.found.append(found)
        if strict and found.error is not None:
            raise SettingsError(
                "strict-plugins", f"strict_plugins: {name} ({origin}) can't be loaded: {found.error}"
            )
    return plugins


def _sources(
    paths: Iterable[str], directory: Path | None, *, shipped: bool
) -> Iterator[tuple[str, str, Callable[[], object]]]:
    if shipped:
        for path in SHIPPED:
            yield f"meterite.{path.rpartition('.')[2]}", "shipped", partial(importlib.import_module, path)
    for entry in importlib.metadata.entry_points(group=GROUP):
        yield entry.name, _distribution(entry), entry.load
    for path in paths:
        yield path, "plugins", partial(pkgutil.resolve_name, path)
    if directory is not None:
        for file in list_plugins(directory):
            yield file.stem, str(file), partial(_load_file, file)


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a distribution"


def _load_file(file: Path) -> ModuleType:
    """As a module of its own; without a compiled copy, which would lie where others may write."""
    code = compile(read_plugin(file), str(file), "exec", dont_inherit=True)
    module = ModuleType(f"{_PACKAGE}.{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        exec(code, vars(module))  # noqa: S102 - running the operator's own file is what the setting asks for
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _add(manager: pluggy.PluginManager, name: str, origin: str, load: Callable[[], object]) -> Found:
    if manager.has_plugin(name):
        return Found(name, origin, error="another plug-in has this name")
    plugin: object = None
    try:
        plugin = load()
        if isinstance(plugin, type):
            plugin = plugin()
        if manager.is_registered(plugin):
            return Found(name, origin, error="it was loaded already, under another name")
        manager.register(plugin, name)
        hooks = _check(manager, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - a plug-in may raise whatever it likes, SystemExit included
        if plugin is not None and manager.is_registered(plugin):
            manager.unregister(plugin)
        return Found(name, origin, error=one_line(exc))
    return Found(name, origin, hooks)


def _check(manager: pluggy.PluginManager, plugin: object) -> tuple[str, ...]:
    """Its hooks' names. ValueError for what pluggy lets pass and would never be called as it was meant."""
    hooks = []
    for caller in manager.get_hookcallers(plugin) or ():
        hooks.append(caller.name)
        for impl in caller.get_hookimpls():
            if impl.plugin is not plugin:
                continue
            if caller.name not in HOOK_NAMES and not impl.optionalhook:
                raise ValueError(f"there is no hook {caller.name}")
            if impl.wrapper or impl.hookwrapper:
                raise ValueError(f"{caller.name} can't be a wrapper")
            if caller.name in AT_ONCE and inspect.iscoroutinefunction(impl.function):
                raise ValueError(f"{caller.name} can't be a coroutine function")
    if not hooks:
        raise ValueError("it implements no hook; is @hookimpl missing?")
    return tuple(sorted(hooks))
