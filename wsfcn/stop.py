"""Stopping long work by SIGINT (Ctrl-C) or SIGTERM without losing what was done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(KeyboardInterrupt):
    """Work that was stopped by a signal; the message says how to go on.

    code: what the shell is told, 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


class Stop:
    """While it is entered, the two signals raise Interrupted, as Ctrl-C raises KeyboardInterrupt.

    Where `waits` is set they are only noted in `signal`, for the work to come to a good end by
    itself; a second one raises. In other threads than the main one, which get no signals, nothing
    happens. hint: how to go on.
    """

    def __init__(self, hint: str = "") -> None:
        self.hint, self.signal = hint, 0
        self.waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal, number
        if again or not self.waits:
            self.leave("interrupted")

    def leave(self, said: str) -> None:
        """Raise Interrupted with the hint."""
        raise Interrupted(f"{said}; {self.hint}".rstrip("; "), 128 + (self.signal or signal.SIGINT))


def ignore(worker: int = 0) -> None:
    """Leave the two signals to the parent; for the processes that load data."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
