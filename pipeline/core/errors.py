"""Errors a user can cause: what is wrong, where, and what to do about it."""

from __future__ import annotations

from typing import Any

from quoin.pipeline.core.formatting import printable


class QuoinError(Exception):
    """A problem that the user can act on, shown as one sentence and never as a traceback.

    ``what`` is wrong, ``where`` (a path, a key, a photo), and what to ``hint`` about it. The sentence is printable:
    what names of files and texts of libraries bring along neither steers a terminal nor tells a password.
    """

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, None if where is None else str(where), hint
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f" ({self.where!r})" if self.where else ""
        advice = f" {self.hint[0].upper()}{self.hint[1:]}" + "." * (self.hint[-1] not in ".?!") if self.hint else ""
        return printable(f"{self.what}{place}.{advice}")

    def __reduce__(self) -> tuple[Any, ...]:  # keeps keyword arguments when an actor sends the error home
        return _rebuild, (type(self), self.what, self.where, self.hint), vars(self)


class PartialResult(QuoinError):
    """Part of the work failed; the rest is kept, and quoin resume continues from there."""


class OutOfMemory(QuoinError):
    """The memory of the GPU or of the machine is too small for this work as it is configured."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _rebuild(kind: type[QuoinError], what: str, where: str | None, hint: str | None) -> QuoinError:
    return kind(what, where=where, hint=hint)
