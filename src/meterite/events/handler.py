"""What a handler is: made from its options, told events, and answering by what it raises.

What this file guarantees to who writes one (through the hook ``meterite_handler_kinds``):

- ``handle`` returns: delivered. It raises :class:`Refused`: never to be tried again. It raises :class:`Retry` or
  anything else, or takes longer than ``timeout``: to be tried again later, until ``tries`` or ``give_up`` are used up.
- The same event may come more than once (at least once), always with the same ``id`` and the same content.
- ``handle`` may be a coroutine function, then it runs in an event loop that this handler has for itself, as ``open``
  and ``close`` do; or a plain function, then it runs in threads, as many as ``concurrency``. A timeout cancels the
  coroutine; a thread can't be stopped, and its place is taken until it is done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Generic, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from meterite.model.duration import parse_duration
from meterite.model.errors import InvalidInputError
from meterite.model.event import EventType  # noqa: TC001 - pydantic reads it when the class is made
from meterite.model.time import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from meterite.model.columns import Labels
    from meterite.model.event import Event

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"
REASON_CHARACTERS_MAX: Final = 500


class Retry(Exception):  # noqa: N818 - an answer, not an error
    """Not delivered, and to be tried again: after ``after_s`` at the earliest, where the receiver said so."""

    def __init__(self, reason: str, *, after_s: float | None = None) -> None:
        super().__init__(reason[:REASON_CHARACTERS_MAX])
        self.reason = reason[:REASON_CHARACTERS_MAX]
        self.after_s = after_s


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """Not delivered, and no other try would be: the delivery is dead at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:REASON_CHARACTERS_MAX])
        self.reason = reason[:REASON_CHARACTERS_MAX]


def _seconds(value: Any) -> Any:
    """``"1m"`` as 60.0; a number is seconds."""
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value, place=()) / SECOND_US
    except InvalidInputError:
        raise ValueError("must be a duration such as 30s, 5m or 1h, or a number of seconds") from None


def several(value: Any) -> Any:
    """One text, or a list of them."""
    return (value,) if isinstance(value, str) else value


SECONDS: Final = BeforeValidator(_seconds)
Seconds = Annotated[float, SECONDS, Field(ge=0, le=366 * 86400, allow_inf_nan=False)]
"""A duration among the options: ``"1m"``, ``"500ms"``, or a number of seconds."""


class HandlerOptions(BaseModel):
    """What every handler may be told; a kind's own options derive from it. Secrets are ``SecretStr``.

    A validator's ValueError becomes the line that the operator reads: it names what is wrong and repeats no secret.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=NAME_PATTERN)
    kind: str
    orgs: Annotated[frozenset[str], BeforeValidator(several), Field(min_length=1)] | None = None
    types: Annotated[frozenset[EventType], BeforeValidator(several), Field(min_length=1)] | None = None
    metrics: Annotated[tuple[str, ...], BeforeValidator(several), Field(min_length=1)] | None = None
    min_gap: Seconds = 0.0
    ordered: bool = False
    timeout: Annotated[Seconds, Field(gt=0, le=300)] = 10.0
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    tries: Annotated[int, Field(ge=1, le=10_000)] = 200
    give_up: Annotated[Seconds, Field(gt=0)] = 72 * 3600.0


@dataclass(frozen=True, slots=True)
class Interest:
    """Which events a handler is told. ``metrics`` are codes, or beginnings of codes that end in ``*``."""

    orgs: frozenset[str] | None = None
    types: frozenset[str] | None = None
    metrics: tuple[str, ...] | None = None

    @staticmethod
    def of(options: HandlerOptions) -> Interest:
        types = None if options.types is None else frozenset(map(str, options.types))
        return Interest(options.orgs, types, options.metrics)

    def takes(self, org: str, type_: str, code: str | None) -> bool:
        """``code`` is None for an event that is about no metric."""
        return self.takes_org(org) and self.takes_type(type_) and self.takes_metric(code)

    def takes_org(self, org: str) -> bool:
        return self.orgs is None or org in self.orgs

    def takes_type(self, type_: str) -> bool:
        return self.types is None or type_ in self.types

    def takes_metric(self, code: str | None) -> bool:
        if self.metrics is None:
            return True
        return code is not None and any(matches(pattern, code) for pattern in self.metrics)


def matches(pattern: str, code: str) -> bool:
    """``a*`` is every code that begins with ``a``; without the asterisk it is that code alone."""
    return code.startswith(pattern[:-1]) if pattern.endswith("*") else code == pattern


class Record(Protocol):
    """Writes a reading, durably. MeteriteError; its ``again`` says whether another try may help."""

    def __call__(
        self, org: str, code: str, value: float, at_us: int | None, labels: Labels
    ) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What the service lends to handlers. ``shared`` is for what those of one kind must know of each other."""

    record: Record
    shared: dict[str, Any] = field(default_factory=dict)


class Handler:
    """Told events."""

    async def open(self) -> None:
        """Once before the first event, in the loop in which ``handle`` runs."""

    def handle(self, event: Event) -> Awaitable[None] | None:
        """Deliver, or raise Retry or Refused. Most write ``async def``."""
        raise NotImplementedError

    remind_s: ClassVar[float | None] = None
    """Every so many seconds :meth:`remind` is called while something holds: for receivers that forget."""

    async def remind(self, events: Sequence[Event], *, over: bool = False) -> None:
        """What was told and holds still, as events that say what is known of it; or what was over in the meantime.

        What it raises is logged, and it is called again the next time.
        """

    async def close(self) -> None:
        """Once after the last event; most of a second is what it has."""


OptionsT = TypeVar("OptionsT", bound=HandlerOptions)


@dataclass(frozen=True, slots=True)
class Kind(Generic[OptionsT]):
    """A kind of handler: the model of its options, and what makes one from them.

    ``make`` may raise ValueError for what can't be used; its text follows the handler's name in the message.
    ``lacks`` says what isn't there that handlers of the kind need, such as a library: ``meterite plugins`` tells it.
    """

    options: type[OptionsT]
    make: Callable[[OptionsT, Tools], Handler]
    lacks: str = ""
