"""Which metrics readings may make that nobody registered, by org."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

ON: Final = ("",)
OFF: Final[tuple[str, ...]] = ()
OTHERS: Final = "*"
_WORDS: Final = {"on": ON, "off": OFF}


@dataclass(frozen=True, slots=True)
class AutoCreate:
    """Prefixes of the codes that may be made: of an org, or of all that aren't named. Every code begins with ``""``."""

    by_org: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: tuple[str, ...] = ON

    def allows(self, org: str, code: str) -> bool:
        return code.startswith(self.prefixes(org))

    def prefixes(self, org: str) -> tuple[str, ...]:
        return self.by_org.get(org, self.others)

    @staticmethod
    def of(value: object) -> AutoCreate:
        """Of ``on``, ``off``, a list of prefixes, or an object from org (``*``: all others) to one of those.

        ValueError.
        """
        if not isinstance(value, Mapping):
            return AutoCreate(others=_prefixes(value))
        by_org = {org: _prefixes(rule) for org, rule in value.items()}
        return AutoCreate(by_org, by_org.pop(OTHERS, ON))


def _prefixes(rule: object) -> tuple[str, ...]:
    if isinstance(rule, str) and rule in _WORDS:
        return _WORDS[rule]
    if isinstance(rule, list) and all(isinstance(prefix, str) and prefix for prefix in rule):
        return tuple(rule)
    raise ValueError(
        'must be on, off, a list of prefixes such as ["app_"], or an object from org to one of those'
    )
