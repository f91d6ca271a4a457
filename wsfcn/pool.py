"""Work spread over processes, in order, whose errors reach the caller."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from .allocation import keep_freed_memory

T = TypeVar("T")


class WorkError(RuntimeError):
    """A piece of work failed; the message names it and says what happened."""


def own_cores() -> int:
    """The cores that this process may use; a batch system or `taskset` may give it a few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    function: Callable[..., T],
    work: Iterable[tuple[str, tuple[Any, ...]]],
    *,
    processes: int = 1,
) -> Iterator[T]:
    """function(*arguments) for every (name, arguments) of `work`, in its order.

    processes: 1 does it here. Otherwise a function of a module runs in that many processes, at
    most twice as many pieces being on the way, so that `work` may be longer than memory.
    Raises WorkError, named after the piece.
    """
    return _here(function, work) if processes <= 1 else _pooled(function, work, processes)


def _here(function: Callable[..., T], work: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[T]:
    for name, arguments in work:
        try:
            result = function(*arguments)
        except Exception as error:
            raise named(name, error) from error
        yield result


def _pooled(
    function: Callable[..., T], work: Iterable[tuple[str, tuple[Any, ...]]], processes: int
) -> Iterator[T]:
    waiting: deque[tuple[str, Future[T]]] = deque()
    # Forked children of a process that runs threads, as torch does, may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_prepared)
    try:
        for name, arguments in work:
            try:
                waiting.append((name, pool.submit(function, *arguments)))
            except BrokenProcessPool:  # told with the piece that broke it
                break
            if len(waiting) >= 2 * processes:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(name: str, future: Future[T]) -> T:
    try:
        return future.result()
    except BrokenProcessPool:
        raise WorkError(
            f"{name}: a worker process died, killed for want of memory perhaps; fewer processes "
            "need less"
        ) from None
    except Exception as error:
        raise named(name, error) from error


def named(name: str, error: Exception) -> WorkError:
    """The error of a piece of work, with its name in front."""
    return WorkError(f"{name}: {type(error).__name__}: {error}")


def _prepared() -> None:
    keep_freed_memory()
    # One that has not loaded torch need not load it for this.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
