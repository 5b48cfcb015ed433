"""Clinical metrics of written reports: CE-F1 and CRG over 18 findings, and the entailment of statements.

Generated and reference reports are read by the same rules (`components.downstream.facts`). The entailment score is
shaped like RadFact's (precision: of what is written, how much the reference supports; recall: the other way round),
but rules decide here, not a language model: it is not RadFact and must not be compared with its figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.downstream.facts import Statement, affirmed_findings, entailed, statements
from components.evaluation import statistics as st
from components.reports.findings import labels

Flags = npt.NDArray[np.int64]
RULE = (
    "a finding counts as affirmed where a sentence says that it is present or suspected, by the same rules for both "
    "reports; statements are compared by finding, polarity, side and place: rules, not RadFact's language model"
)


@dataclass(frozen=True)
class Findings:
    """What reports affirm: `values` int [N, 18] in the order of `names`, `known` bool [N, 18]."""

    names: tuple[str, ...]
    values: Flags
    known: npt.NDArray[np.bool_]

    @classmethod
    def of_reports(cls, reports: Sequence[Sequence[str]]) -> Findings:
        """Read from the sentences of each report; all are known, for silence is taken as absence."""
        values = np.array([affirmed_findings(one) for one in reports], dtype=np.int64).reshape(
            len(reports), -1
        )
        return cls(labels(), values, np.ones(values.shape, dtype=bool))

    @classmethod
    def of_labels(cls, known: Mapping[str, Mapping[str, int]], studies: Sequence[str]) -> Findings:
        """Gold labels (label -> study -> 1 or 0) of those of the 18 findings that have any."""
        found = [[known.get(name, {}).get(study, -1) for name in labels()] for study in studies]
        values = np.array(found, dtype=np.int64).reshape(len(studies), -1)
        return cls(labels(), np.maximum(values, 0), values >= 0)


def _counts(truth: Findings, said: Flags) -> tuple[st.Array, st.Array, st.Array]:
    """True positives, positives of the truth and of what is said, float [N, 18], where the truth is known."""
    known = truth.known.astype(np.float64)
    both = known * (truth.values * said)
    return both, known * truth.values, known * said


def _share(top: st.Array, bottom: st.Array) -> st.Metric:
    """Weighted sums over studies [N], one divided by the other."""

    def metric(weights: st.Array) -> st.Array:
        low = weights @ bottom
        return np.divide(weights @ top, low, out=np.full(len(weights), np.nan), where=low > 0)

    return metric


def clinical_efficacy(
    truth: Findings, said: Flags, judged: Sequence[str], prefix: str = "ce"
) -> dict[str, st.Metric]:
    """Precision, recall and F1 over all findings (micro), and the mean F1 over the findings `judged` (macro)."""
    both, positive, affirmed = _counts(truth, said)
    columns = [truth.names.index(name) for name in judged]
    everyone = np.arange(len(said))
    return {
        f"{prefix}_f1_macro": st.macro(
            (_share(2 * both[:, one], positive[:, one] + affirmed[:, one]), everyone) for one in columns
        ),
        f"{prefix}_f1_micro": _share(2 * both.sum(1), (positive + affirmed).sum(1)),
        f"{prefix}_precision_micro": _share(both.sum(1), affirmed.sum(1)),
        f"{prefix}_recall_micro": _share(both.sum(1), positive.sum(1)),
    }


def finding_f1(truth: Findings, said: Flags, name: str) -> st.Metric:
    """The F1 of one finding."""
    both, positive, affirmed = (part[:, truth.names.index(name)] for part in _counts(truth, said))
    return _share(2 * both, positive + affirmed)


def crg(truth: Findings, said: Flags) -> st.Metric:
    """CRG (VLM3D): U / (2 U - s), s = r TP - r FN - FP, r = (X - A) / 2 A, U = (X - A) / 2; all negative: 1/3.

    X counts finding-report pairs, A the positive ones among them.
    """
    both, positive, affirmed = (part.sum(1) for part in _counts(truth, said))
    pairs = truth.known.sum(1).astype(np.float64)

    def metric(weights: st.Array) -> st.Array:
        true, there, told, total = (weights @ one for one in (both, positive, affirmed, pairs))
        defined = (there > 0) & (total > there)
        rate = np.divide(total - there, 2 * there, out=np.zeros_like(total), where=there > 0)
        half = (total - there) / 2
        score = rate * true - rate * (there - true) - (told - true)
        return np.divide(half, 2 * half - score, out=np.full(len(weights), np.nan), where=defined)

    return metric


def entailment(
    written: Sequence[Sequence[Statement]], references: Sequence[Sequence[Statement]]
) -> dict[str, st.Metric]:
    """Precision, recall and F1 of statements over the corpus: `statement_*` of all, `positive_statement_*`.

    A positive statement is judged against all statements of the other report.
    """
    found: dict[str, st.Metric] = {}
    for prefix, positive in (("statement", False), ("positive_statement", True)):
        supported, said = _supported(written, references, positive)
        recalled, told = _supported(references, written, positive)
        precision, recall = _share(supported, said), _share(recalled, told)
        found[f"{prefix}_f1"] = _harmonic(precision, recall)
        found[f"{prefix}_precision"], found[f"{prefix}_recall"] = precision, recall
    return found


def _supported(
    claims: Sequence[Sequence[Statement]], premises: Sequence[Sequence[Statement]], positive: bool
) -> tuple[st.Array, st.Array]:
    """Of each report's statements, how many the other one entails, and how many there are, float [N] each."""
    kept = [[one for one in report if one.affirmed or not positive] for report in claims]
    supported = [
        sum(entailed(one, premise) for one in report) for report, premise in zip(kept, premises, strict=True)
    ]
    return np.array(supported, dtype=np.float64), np.array([len(report) for report in kept], dtype=np.float64)


def _harmonic(precision: st.Metric, recall: st.Metric) -> st.Metric:
    """F1 of two metrics; nothing said has precision 0 here, where there was something to say."""

    def metric(weights: st.Array) -> st.Array:
        first, second = np.nan_to_num(precision(weights)), recall(weights)
        total = first + second
        value = np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)
        return np.where(np.isfinite(second), value, np.nan)

    return metric


def all_statements(reports: Sequence[Sequence[str]]) -> list[list[Statement]]:
    """The statements of each report."""
    return [statements(one) for one in reports]
