"""The order of studies: a pure function of (seed, step), shared out over processes, startable anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.base.errors import InputError
from components.pretraining.schedule import Schedule, ScheduledBatches


def make(**changes: object) -> Schedule:
    values = {
        "seed": 3,
        "num_paired": 23,
        "num_image_only": 7,
        "batch_size": 8,
        "image_only_fraction": 0.25,
    }
    return Schedule(**{**values, **changes})  # type: ignore[arg-type]


@given(
    paired=st.integers(1, 40),
    alone=st.integers(0, 20),
    batch=st.integers(1, 12),
    fraction=st.floats(0, 0.9),
    step=st.integers(0, 500),
)
@settings(max_examples=200, deadline=None)
def test_a_batch_never_repeats_a_study_and_keeps_the_mixture(
    paired: int, alone: int, batch: int, fraction: float, step: int
) -> None:
    schedule = make(num_paired=paired, num_image_only=alone, batch_size=batch, image_only_fraction=fraction)
    draws = schedule.batch(step)
    studies = [draw.study for draw in draws]
    assert len(set(studies)) == len(studies)
    assert all(draw.step == step for draw in draws)
    rows = schedule.rows
    assert sum(study < paired for study in studies) == rows[0] <= paired
    assert sum(study >= paired for study in studies) == rows[1] <= alone
    assert all(0 <= study < paired + alone for study in studies)


def test_an_epoch_visits_every_study_at_most_once_and_all_in_time() -> None:
    schedule = make(num_image_only=0)
    draws = [draw for step in range(60) for draw in schedule.batch(step)]
    by_epoch: dict[int, list[int]] = {}
    for draw in draws:
        by_epoch.setdefault(draw.epoch, []).append(draw.study)
    assert all(len(set(studies)) == len(studies) for studies in by_epoch.values())
    assert {draw.study for draw in draws} == set(range(23))


def test_starting_at_an_offset_goes_on_with_the_same_order() -> None:
    schedule = make()
    whole = list(ScheduledBatches(schedule, 0, 50))
    assert list(ScheduledBatches(schedule, 17, 50)) == whole[17:]
    assert whole != list(ScheduledBatches(make(seed=4), 0, 50))


def test_processes_share_a_step_without_overlap() -> None:
    schedule = make(world=2, batch_size=4)
    for step in range(20):
        first, second = ({draw.study for draw in schedule.batch(step, rank)} for rank in (0, 1))
        assert not first & second
        assert len(first) == len(second) == 4


def test_image_only_and_paired_alone() -> None:
    assert make(num_paired=0).rows == (0, 7)
    assert make(num_image_only=0).rows == (8, 0)
    assert make(image_only_fraction=0.0).rows == (8, 0)
    assert make(num_paired=3).rows == (3, 2)


def test_nothing_to_train_on_is_an_input_error() -> None:
    with pytest.raises(InputError, match="too few"):
        make(num_paired=0, num_image_only=0)
