"""The next batch is read while a step computes, in the same order: a thread and a short queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 0.2


def prefetched(items: Iterator[T], depth: int) -> Iterator[T]:
    """The items of an iterator, up to `depth` of them made ahead by a thread; 0 makes none ahead.

    Order and values are the iterator's own. An error in the thread is raised where its item would have been asked
    for. Closing the generator (or dropping it) ends the thread.
    """
    if depth < 1:
        yield from items
        return
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    ended = threading.Event()

    def put(found: tuple[bool, T | BaseException | None]) -> None:
        while not ended.is_set():
            try:
                ready.put(found, timeout=PATIENCE_S)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((True, item))
                if ended.is_set():
                    return
            put((False, None))
        except BaseException as error:  # raised again in the thread that asks
            put((False, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = ready.get()
            if is_item:
                yield value  # type: ignore[misc]
            elif isinstance(value, BaseException):
                raise value
            else:
                return
    finally:
        ended.set()
        thread.join()
