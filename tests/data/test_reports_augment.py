"""Text augmentations: deterministic, never empty, and without a change of side or negation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.reports.augment import augmented, kept, shortened, shortened_report, shuffled
from components.reports.findings import laterality, mentions, polarity

SENTENCES = [
    "There is a small left pleural effusion, measuring 1.2 cm in depth.",
    "No consolidation.",
    "A 5 mm nodule in the right upper lobe (series 4, image 23), unchanged.",
    "Heart size is normal.",
    "Again seen is emphysema, upper lobe predominant; no bullae.",
    "Atelectasis, likely related to the effusion.",
]


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_generator_gives_the_same_text() -> None:
    assert augmented(SENTENCES, rng()) == augmented(SENTENCES, rng())
    assert {tuple(augmented(SENTENCES, rng(seed))) for seed in range(20)} != {tuple(SENTENCES)}


def test_shuffling_keeps_every_sentence() -> None:
    found = shuffled(SENTENCES, rng())
    assert sorted(found) == sorted(SENTENCES)
    assert found != SENTENCES
    parts = shuffled(SENTENCES, rng(), lambda text: SENTENCES.index(text) < 3)
    assert set(parts[:3]) == set(SENTENCES[:3])
    assert shuffled([], rng()) == []


def test_keeping_is_in_order_and_never_empty() -> None:
    for seed in range(50):
        found = kept(SENTENCES, rng(seed), 0.0)
        assert found
        assert found == [text for text in SENTENCES if text in found]
        assert len(kept(SENTENCES, rng(seed), 0.5)) >= 3
    assert kept([], rng()) == []
    with pytest.raises(ValueError, match="least"):
        kept(SENTENCES, rng(), 1.5)


@pytest.mark.parametrize(
    ("sentence", "short"),
    [
        (SENTENCES[0], "There is a small left pleural effusion."),
        (SENTENCES[1], SENTENCES[1]),
        (SENTENCES[2], "A 5 mm nodule in the right upper lobe."),
        ("Note is made of a small cyst.", "A small cyst."),
        (
            "Nodule; the right lung is clear of consolidation.",
            "Nodule; the right lung is clear of consolidation.",
        ),
        ("No nodule (right) or effusion.", "No nodule (right) or effusion."),
        ("Opacity, likely atelectasis.", "Opacity, likely atelectasis."),
        ("Effusion (left).", "Effusion (left)."),
        ("", ""),
    ],
)
def test_shortening(sentence: str, short: str) -> None:
    assert shortened(sentence) == short


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "No ", "Possible ", "Again seen is ", "There is no "]),
            st.sampled_from(
                ["nodule", "left effusion", "consolidation in the right lung", "pleural effusion"]
            ),
            st.sampled_from(
                [
                    "",
                    ", unchanged",
                    " (image 3)",
                    "; no mass",
                    ", likely left",
                    ", measuring 3 mm",
                    " but no bullae",
                ]
            ),
        ).map(lambda parts: "".join(parts) + "."),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 10_000),
)
def test_no_side_or_negation_changes(sentences: list[str], seed: int) -> None:
    found = shortened_report(sentences, rng(seed), 1.0)
    for before, after in zip(sentences, found, strict=True):
        assert after
        assert len(after) <= len(before)
        assert (polarity(before), laterality(before)) == (polarity(after), laterality(after))
        assert {(m.finding, m.status) for m in mentions(before)} == {
            (m.finding, m.status) for m in mentions(after)
        }
    assert augmented(sentences, rng(seed))
