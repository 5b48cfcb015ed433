"""Reading ahead changes neither order nor values, and ends with whoever asks; the clock adds up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from components.pretraining.clock import OF_A_STEP, Clock
from components.pretraining.prefetch import prefetched


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_order_is_kept(depth: int) -> None:
    assert list(prefetched(iter(range(50)), depth)) == list(range(50))


def test_the_next_item_is_made_while_the_first_is_used() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    stream = prefetched(items(), 1)
    assert next(stream) == 0
    assert made.wait(5)
    assert next(stream) == 1


def test_no_more_than_depth_items_are_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    stream = prefetched(items(), 2)
    next(stream)
    time.sleep(0.1)
    assert len(made) <= 5  # one given, two in the queue, one in the thread's hand
    stream.close()  # type: ignore[attr-defined]


def test_an_error_comes_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    stream = prefetched(items(), 3)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="the second"):
        next(stream)


def test_closing_ends_the_thread() -> None:
    stream = prefetched(iter(range(1000)), 1)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_the_clock_adds_up() -> None:
    clock = Clock()
    for part, seconds in (("data", 0.01), ("forward", 0.02), ("backward", 0.01)):
        with clock(part):
            time.sleep(seconds)
    with clock("validation"):
        time.sleep(0.03)
    clock.steps = 2
    assert 0.02 <= clock.step_s < 0.05
    assert sum(clock.shares().values()) == pytest.approx(1, abs=0.01)
    assert set(clock.shares()) == {f"{part}_share" for part in OF_A_STEP}
    summary = clock.summary(8, 1)
    assert summary["volumes_per_s"] == pytest.approx(8 / clock.step_s, rel=1e-2)
    assert summary["validation_s"] >= 0.03
    assert Clock().summary(8, 1)["volumes_per_s"] == 0
