"""Metrics of written reports: published worked examples, slow references, invariants, chance levels."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from components.downstream.facts import (
    Statement,
    affirmed_findings,
    entailed,
    finding_statuses,
    statements,
)
from components.evaluation import clinical_metrics as clinical
from components.evaluation import text_metrics as text
from components.evaluation.protocols.report_generation import constant_report, other_reports
from components.evaluation.statistics import Bootstrap
from components.reports.findings import labels


def value(metric, count: int) -> float:
    return float(metric(np.ones((1, count)))[0])


# Papineni et al. 2002: the clipped unigrams of "the the the ..." and two candidates against a reference
MAT = "The cat is on the mat."
GUIDE = "It is a guide to action that ensures that the military will forever heed Party commands"
FIRST = "It is a guide to action which ensures that the military always obeys the commands of the party"


def test_bleu_clips_counts_as_published():
    assert value(
        text.bleu(["the the the the the the the"], ["the cat is on the mat"], 1), 1
    ) == pytest.approx(2 / 7)
    assert value(text.bleu([MAT], [MAT]), 1) == pytest.approx(1.0)
    assert value(text.bleu(["the cat"], [MAT], 1), 1) == pytest.approx(math.exp(1 - 7 / 2))


def test_bleu_of_a_corpus_is_of_summed_counts_and_sacrebleu_agrees():
    import sacrebleu

    said, truth = (
        [FIRST, "no effusion.", "a 3.5 mm nodule, unchanged."],
        [GUIDE, "no pleural effusion.", "3.5 mm nodule."],
    )
    reference = sacrebleu.corpus_bleu(said, [truth], lowercase=True, smooth_method="none").score / 100
    assert value(text.bleu(said, truth), 3) == pytest.approx(reference)
    weights = np.array([[2.0, 0.0, 1.0]])
    doubled = sacrebleu.corpus_bleu(
        [said[0], said[0], said[2]], [[truth[0], truth[0], truth[2]]], lowercase=True
    )
    assert float(text.bleu(said, truth)(weights)[0]) == pytest.approx(doubled.score / 100)
    assert value(text.bleu(["", ""], truth[:2]), 2) == 0.0


def test_rouge_l_is_lins_example():
    """Lin 2004: `police kill the gunman` shares 3 words in order with `police killed the gunman`, the other 2."""
    truth = "police killed the gunman"
    assert value(text.rouge_l(["police kill the gunman"], [truth]), 1) == pytest.approx(0.75)
    assert value(text.rouge_l(["the gunman kill police"], [truth]), 1) == pytest.approx(0.5)
    assert value(text.rouge_l(["", truth], [truth, truth]), 2) == pytest.approx(0.5)


def test_rouge_1_counts_a_word_as_often_as_both_have_it():
    assert value(text.rouge_1(["no no nodule"], ["no nodule seen"]), 1) == pytest.approx(2 / 3)


def test_the_bit_parallel_subsequence_is_that_of_the_table():
    def slow(first: list[str], second: list[str]) -> int:
        table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
        for i, one in enumerate(first, 1):
            for j, other in enumerate(second, 1):
                table[i, j] = (
                    table[i - 1, j - 1] + 1 if one == other else max(table[i - 1, j], table[i, j - 1])
                )
        return int(table[-1, -1])

    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = (list(map(str, rng.integers(0, 5, rng.integers(0, 90)))) for _ in range(2))
        assert text.common_subsequence(first, second) == slow(first, second)


def test_meteor_is_bannerjee_and_lavies_formula():
    """Exact words in one chunk: F = 1 and penalty 0.5 (1 / m)^3; a stem counts as a match; no synonym does."""
    assert value(text.meteor(["the cat sat"], ["the cat sat"]), 1) == pytest.approx(1 - 0.5 / 27)
    assert value(text.meteor(["nodules"], ["nodule"]), 1) == pytest.approx(0.5)
    assert value(text.meteor(["mass"], ["lump"]), 1) == 0.0
    precision, recall = 2 / 3, 2 / 4
    mean = 10 * precision * recall / (recall + 9 * precision)
    found = value(text.meteor(["no cat effusion"], ["no small pleural effusion"]), 1)
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 2) ** 3))


def slow_cider(said: list[str], truth: list[str]) -> list[float]:
    """CIDEr-D from its definition, a loop at a time."""

    def grams(words: list[str], size: int) -> Counter:
        return Counter(tuple(words[at : at + size]) for at in range(len(words) - size + 1))

    tokens = [[one.split() for one in side] for side in (said, truth)]
    scores = []
    for mine, own in zip(*tokens, strict=True):
        total = 0.0
        for size in (1, 2, 3, 4):
            documents = [set(grams(one, size)) for one in tokens[1]]

            def tfidf(words: list[str], size: int = size, documents=documents) -> dict:
                return {
                    gram: count * math.log(len(documents) / max(1, sum(gram in one for one in documents)))
                    for gram, count in grams(words, size).items()
                }

            a, b = tfidf(mine), tfidf(own)
            norm = math.sqrt(sum(x * x for x in a.values())) * math.sqrt(sum(x * x for x in b.values()))
            if norm:
                total += sum(min(x, b.get(gram, 0)) * b.get(gram, 0) for gram, x in a.items()) / norm
        scores.append(10 * total / 4 * math.exp(-((len(mine) - len(own)) ** 2) / 72))
    return scores


def test_cider_d_is_its_definition_and_repetition_does_not_pay():
    truth = ["no pleural effusion is seen", "a nodule in the left upper lobe", "the heart is enlarged today"]
    said = ["no effusion is seen", "a nodule in the right upper lobe is seen", "the heart is enlarged today"]
    cider = text.CiderD(truth)
    assert cider.values(said).tolist() == pytest.approx(slow_cider(said, truth))
    assert cider.values(truth).tolist() == pytest.approx([10.0] * 3)
    once = cider.values(["nodule", *truth[1:]])[0]
    again = cider.values([truth[0], "nodule nodule nodule nodule nodule", truth[2]])[1]
    assert once == 0.0
    assert again < cider.values([truth[0], "a nodule in the left", truth[2]])[1]


def test_greedy_bertscore_matches_each_piece_with_its_most_similar():
    said, truth = np.eye(3), np.eye(3)[[2, 0]]
    precision, recall = 2 / 3, 1.0
    assert text.greedy_f1(said, truth) == pytest.approx(2 * precision * recall / (precision + recall))
    assert text.greedy_f1(np.zeros((0, 3)), truth) == 0.0


REPORTS = [
    ["There is a small left pleural effusion.", "No lung nodule.", "The heart is enlarged."],
    ["No pleural effusion.", "There is a 5 mm nodule in the right upper lobe."],
    ["No pleural effusion.", "No lung nodule.", "Possible consolidation in the left lower lobe."],
]


def test_findings_of_a_report_are_the_strongest_statements():
    found = finding_statuses([*REPORTS[0], "Pleural effusion is not seen on the right."])
    assert found["Pleural effusion"] == "present"
    assert found["Lung nodule"] == "absent"
    assert found["Emphysema"] == "not_mentioned"
    assert list(found) == list(labels())
    assert sum(affirmed_findings(REPORTS[2])) == 1, "a suspected finding is affirmed"


def test_clinical_f1_and_crg_are_worked_values():
    """Two findings of 18 in three reports: 2 true positives, 1 false, 2 missed."""
    said = [REPORTS[0][:1], REPORTS[1], ["There is a left pleural effusion."]]
    truth = clinical.Findings.of_reports(REPORTS)
    affirmed = clinical.Findings.of_reports(said).values
    found = clinical.clinical_efficacy(truth, affirmed, ("Pleural effusion", "Lung nodule", "Cardiomegaly"))
    assert value(found["ce_precision_micro"], 3) == pytest.approx(2 / 3)
    assert value(found["ce_recall_micro"], 3) == pytest.approx(2 / 4)
    assert value(found["ce_f1_micro"], 3) == pytest.approx(4 / 7)
    assert value(found["ce_f1_macro"], 3) == pytest.approx((2 / 3 + 1 + 0) / 3)
    pairs, positive = 3 * 18, 4
    rate, half = (pairs - positive) / (2 * positive), (pairs - positive) / 2
    score = rate * 2 - rate * 2 - 1
    assert value(clinical.crg(truth, affirmed), 3) == pytest.approx(half / (2 * half - score))
    assert value(clinical.crg(truth, np.zeros_like(affirmed)), 3) == pytest.approx(1 / 3)
    assert value(clinical.crg(truth, truth.values), 3) == pytest.approx(1.0)


def test_gold_labels_count_only_where_they_are_known():
    gold = clinical.Findings.of_labels(
        {"Pleural effusion": {"a": 1, "b": 0}, "other": {"a": 1}}, ["a", "b", "c"]
    )
    said = np.zeros((3, 18), dtype=np.int64)
    said[:, gold.names.index("Pleural effusion")] = 1
    said[0, gold.names.index("Emphysema")] = 1
    found = clinical.clinical_efficacy(gold, said, ("Pleural effusion",), "gold_ce")
    assert value(found["gold_ce_f1_micro"], 3) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("claim", "premise", "holds"),
    [
        ("There is a left pleural effusion.", "Small left pleural effusion.", True),
        ("There is a pleural effusion.", "Small left pleural effusion.", True),
        ("There is a left pleural effusion.", "There is a right pleural effusion.", False),
        ("There is a left pleural effusion.", "Bilateral pleural effusions.", True),
        ("Bilateral pleural effusions.", "There is a left pleural effusion.", False),
        ("There is a pleural effusion.", "No pleural effusion.", False),
        ("No pleural effusion.", "No pleural effusion is seen.", True),
        ("Possible consolidation in the left lower lobe.", "Consolidation in the left lower lobe.", True),
        ("Consolidation in the left lower lobe.", "Possible consolidation in the left lower lobe.", False),
        ("Nodule in the right upper lobe.", "Nodule in the right lower lobe.", False),
        ("Nodule in the right lung.", "Nodule in the right lower lobe.", True),
        ("There is a rib fracture.", "Fracture of a rib is seen.", True),
        ("There is a rib fracture.", "No rib fracture.", False),
        ("There is a rib fracture.", "There is a lytic rib lesion.", False),
    ],
)
def test_a_statement_follows_from_another_by_finding_polarity_side_and_place(claim, premise, holds):
    (one,) = statements([claim])
    assert entailed(one, statements([premise])) is holds


def test_statements_count_once_and_silence_entails_nothing():
    assert len(statements(["No pleural effusion.", "No pleural effusion is seen."])) == 1
    assert statements(["Comparison is made with the prior examination."]) == []
    assert not entailed(Statement("Emphysema", (), "absent", "", ()), statements(REPORTS[0]))


def test_the_entailment_score_is_a_worked_value():
    """Written: 2 of 3 statements follow from the reference; of the reference's 3, 2 follow from what is written."""
    written = [["There is a left pleural effusion.", "No lung nodule.", "There is emphysema."]]
    found = clinical.entailment(clinical.all_statements(written), clinical.all_statements(REPORTS[:1]))
    assert value(found["statement_precision"], 1) == pytest.approx(2 / 3)
    assert value(found["statement_recall"], 1) == pytest.approx(2 / 3)
    assert value(found["positive_statement_precision"], 1) == pytest.approx(1 / 2)
    assert value(found["positive_statement_recall"], 1) == pytest.approx(1 / 2)
    assert value(found["positive_statement_f1"], 1) == pytest.approx(1 / 2)
    silent = clinical.entailment([[]], clinical.all_statements(REPORTS[:1]))
    assert value(silent["statement_f1"], 1) == 0.0


def test_a_flipped_negation_costs_clinical_metrics_more_than_surface_ones():
    wrong = [[one.replace("There is a ", "There is no ") for one in report] for report in REPORTS]
    texts, truths = ([" ".join(one) for one in side] for side in (wrong, REPORTS))
    truth, said = (clinical.Findings.of_reports(side) for side in (REPORTS, wrong))
    clinical_loss = 1 - value(clinical.clinical_efficacy(truth, said.values, ())["ce_f1_micro"], 3)
    assert clinical_loss > 0.3
    assert 1 - value(text.rouge_l(texts, truths), 3) < clinical_loss


def test_every_metric_has_an_interval_over_patients():
    texts = [" ".join(one) for one in REPORTS] * 4
    written = texts[1:] + texts[:1]
    patients = [f"pat_{at // 2}" for at in range(12)]
    for metric in (
        text.bleu(written, texts),
        text.rouge_l(written, texts),
        text.CiderD(texts).metric(written),
    ):
        found = Bootstrap(200, 1).estimate(metric, patients, chance=0.0, unit="x")
        assert found.low <= found.value <= found.high
        assert (found.n, found.n_patients) == (12, 6)


def test_ignorant_writers_are_the_most_frequent_report_and_another_patients():
    reports = {"a": ["Normal."], "b": ["Nodule."], "c": [" normal."], "d": ["Mass."]}
    assert constant_report(reports) == ["Normal."] or constant_report(reports) == [" normal."]
    different = {"a": ["No effusion.", "Nodule."], "b": ["No effusion."], "c": ["Mass."]}
    assert constant_report(different) == ["No effusion."]
    patients = ["p", "p", "q", "r"]
    drawn = other_reports(patients, 20, seed=3)
    assert len(drawn) == 20
    assert all(patients[other] != patients[at] for one in drawn for at, other in enumerate(one))
    assert other_reports(patients, 20, seed=3) == drawn
    assert len({tuple(one) for one in drawn}) > 3
