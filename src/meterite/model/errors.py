"""What can go wrong, in the program's own words. Only the edge knows which HTTP status belongs to which.

Every error is a :class:`MeteriteError` with a stable ``code`` (it ends the problem document's ``type``) and a
``message``: one sentence that says what to do. ``again`` tells whether the same request may succeed later.
"""

from __future__ import annotations


class MeteriteError(Exception):
    """The one root. ``code`` is stable and machine-readable, ``message`` is for people."""

    again = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class InvalidInputError(MeteriteError):
    """The request was understood and can't be carried out as it is. ``place`` leads to the culprit."""

    def __init__(self, code: str, message: str, *, place: tuple[str | int, ...] = ("body",)) -> None:
        super().__init__(code, message)
        self.place = place


class MalformedError(MeteriteError):
    """The bytes are not what they say they are (not JSON, not UTF-8, not gzip)."""


class NotFoundError(MeteriteError):
    """No such thing in this org; another org's thing answers exactly the same."""


class MethodError(MeteriteError):
    """The place is there and doesn't take what is to be done to it."""


class ConflictError(MeteriteError):
    """The thing is in a state that does not allow this."""


class TooLargeError(MeteriteError):
    """A bound on bytes, rows or depth was passed."""


class TooSlowError(MeteriteError):
    """The request didn't come on. Nothing was written."""

    again = True


class UnsupportedMediaError(MeteriteError):
    """No decoder for this media type or content encoding."""


class UnauthorizedError(MeteriteError):
    """No valid token came with the request."""


class ForbiddenError(MeteriteError):
    """The credential is good, and may not be used this way (a form on a foreign page, for example)."""


class ExhaustedError(MeteriteError):
    """A numbering has come to its end (series of one metric)."""


class UnavailableError(MeteriteError):
    """Not now: the queue or the disk is full, or the database is locked. Nothing was written."""

    again = True

    def __init__(self, code: str, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class MovedError(MeteriteError):
    """The catalogue changed between resolving a batch and committing it; resolve again and retry."""

    again = True


def metric_moved() -> MovedError:
    return MovedError("moved", "The metric changed meanwhile; try again.")


class RepeatedError(MeteriteError):
    """Another request with its idempotency key was committed first; its receipt answers this one, too."""

    again = True


class DamagedError(MeteriteError):
    """Stored bytes fail their checksum or their format; the row is to be quarantined."""


class MalformedFileError(DamagedError):
    """The database's own pages are damaged, where no row of ours can be named: there is nothing to quarantine."""


class SettingsError(MeteriteError):
    """A setting can't be used; the message names the setting and never its secret parts."""


class SchemaTooNewError(MeteriteError):
    """The database file was written by a newer program."""
