"""Report generation on the test split: every test study with a report is written for, none is left out.

Rank models by the clinical metrics (`rank_by`): surface metrics hardly tell a right report from a wrong one. The
chance level of each metric is the better of two ignorant writers: another patient's test report, drawn at random,
and the most frequent report of the training split, the same for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.base.files import write_table, write_text
from components.downstream.settings import DecodingParams
from components.evaluation import clinical_metrics as clinical
from components.evaluation import statistics as st
from components.evaluation import text_metrics as surface
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, by_slice

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs, StudyRow

Report = list[str]
RANK_BY = ("clinical.ce_f1_macro", "clinical.crg", "clinical.positive_statement_f1")
NOT_MADE = "no local model: set evaluate.report_generation.bertscore_model to a folder"


class ReportGenerationParams(ProtocolParams):
    """How reports are written, and against what chance.

    `min_test`: positive reference reports that a finding needs to count in macro figures. `chance_draws`: how often
    every study draws another patient's report. `bertscore_model`: a local folder, or null for no BERTScore.
    """

    decoding: DecodingParams
    min_test: int = Field(ge=1)
    chance_draws: int = Field(ge=1)
    bertscore_model: str | None
    device: Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Scorer:
    """All metrics of written reports against the test split's references."""

    references: list[Report]
    gold: clinical.Findings
    judged: tuple[str, ...]
    gold_judged: tuple[str, ...]
    cider: surface.CiderD
    bertscore: surface.BertScore | None

    def metrics(self, written: Sequence[Report]) -> dict[str, dict[str, st.Metric]]:
        """Group -> name -> metric, for one report (a list of sentences) a reference."""
        said = clinical.Findings.of_reports(written).values
        truth = clinical.Findings.of_reports(self.references)
        found = {
            **clinical.clinical_efficacy(truth, said, self.judged),
            "crg": clinical.crg(truth, said),
            **clinical.entailment(clinical.all_statements(written), clinical.all_statements(self.references)),
        }
        if self.gold_judged:
            found |= clinical.clinical_efficacy(self.gold, said, self.gold_judged, "gold_ce")
        return {"clinical": found, "surface": self._surface(written)}

    def _surface(self, written: Sequence[Report]) -> dict[str, st.Metric]:
        texts, truths = ([" ".join(one) for one in reports] for reports in (written, self.references))
        found = {f"bleu_{order}": surface.bleu(texts, truths, order) for order in range(1, surface.ORDER + 1)}
        found["rouge_l"] = surface.rouge_l(texts, truths)
        found["meteor"] = surface.meteor(texts, truths)
        found["cider_d"] = self.cider.metric(texts)
        if self.bertscore is not None:
            found["bertscore_f1"] = self.bertscore.metric(texts, truths)
        return found


def constant_report(reports: Mapping[str, Report]) -> Report:
    """The most frequent report; of equally frequent ones the one whose sentences are the most frequent."""
    plain = {key: tuple(" ".join(one.lower().split()) for one in report) for key, report in reports.items()}
    whole = Counter(plain.values())
    sentences = Counter(one for report in plain.values() for one in set(report))

    def rank(key: str) -> tuple[int, float, tuple[str, ...]]:
        report = plain[key]
        return whole[report], sum(sentences[one] for one in report) / max(len(report), 1), report

    return reports[max(sorted(reports), key=rank)]


def other_reports(patients: Sequence[str], draws: int, seed: int) -> list[list[int]]:
    """`draws` times, for every study the number of a study of another patient, drawn at random."""
    generator = np.random.default_rng([seed, 1])
    others = [[at for at, other in enumerate(patients) if other != one] for one in patients]
    return [[int(generator.choice(found)) for found in others] for _ in range(draws)]


def _scorer(
    params: ReportGenerationParams, inputs: DownstreamInputs, studies: Sequence[StudyRow]
) -> tuple[Scorer, dict[str, str]]:
    """The scorer of the test split, and why some findings are not judged."""
    text = inputs.sentences()
    references = [text[row.study_key] for row in studies]
    truth = clinical.Findings.of_reports(references)
    gold = clinical.Findings.of_labels(inputs.labels("gold"), [row.study_key for row in studies])
    folder = params.bertscore_model
    positives = dict(zip(truth.names, truth.values.sum(0).tolist(), strict=True))
    judged = tuple(name for name, count in positives.items() if count >= params.min_test)
    left_out = {
        name: f"{count} positive reference reports in test, {params.min_test} needed"
        for name, count in positives.items()
        if name not in judged
    }
    scorer = Scorer(
        references,
        gold,
        judged,
        tuple(
            name
            for name, count in zip(gold.names, (gold.values * gold.known).sum(0).tolist(), strict=True)
            if count >= params.min_test
        ),
        surface.CiderD([" ".join(one) for one in references]),
        surface.BertScore(inputs.root / folder) if folder else None,
    )
    return scorer, left_out


def _estimates(
    params: ReportGenerationParams,
    scorer: Scorer,
    written: list[Report],
    patients: list[str],
    constant: Report,
) -> dict[str, dict[str, Any]]:
    """Group -> name -> estimate with the chance levels of both ignorant writers."""
    once = np.ones((1, len(written)))
    drawn = [
        scorer.metrics([scorer.references[at] for at in chosen])
        for chosen in other_reports(patients, params.chance_draws, params.seed)
    ]
    fixed = scorer.metrics([constant] * len(written))
    found: dict[str, dict[str, Any]] = {}
    for group, metrics in scorer.metrics(written).items():
        found[group] = {}
        for name, metric in metrics.items():
            levels = {
                "chance_random_report": _mean([float(one[group][name](once)[0]) for one in drawn]),
                "chance_constant_report": _mean([float(fixed[group][name](once)[0])]),
            }
            known = [value for value in levels.values() if value is not None]
            estimate = params.bootstrap().estimate(
                metric, patients, chance=max(known) if known else None, unit=name
            )
            found[group][name] = {**estimate.as_dict(), **levels}
    return found


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


@PROTOCOLS.register("report_generation")
class ReportGeneration:
    """The protocol `report_generation`."""

    Params: ClassVar[type[Config]] = ReportGenerationParams

    @staticmethod
    def evaluate(
        params: ReportGenerationParams, inputs: DownstreamInputs, context: StepContext
    ) -> Mapping[str, Any]:
        """Write `predictions.parquet` and `findings.csv`; clinical and surface metrics with chance levels."""
        from components.downstream.image_tokens import device_of, image_tokens
        from components.downstream.report_writer import WRITE_BATCH, load_writer

        tokenizer, text = inputs.encoder().tokenizer, inputs.sentences()
        model, settings = load_writer(
            inputs.artifact("finetune", "report_generation"), tokenizer.vocab_size, inputs.model_hash()
        )
        studies = [row for row in inputs.studies("test", paired=True) if row.study_key in text]
        if len({row.patient_key for row in studies}) < 2:
            raise InputError(
                "the test split has reports of fewer than two patients",
                rule="report_generation.pool",
                fix="use more paired studies, or a larger test fraction",
            )
        device = device_of(params.device)
        tokens = image_tokens(inputs, studies, settings["scale"], settings["grid"], device)
        model.to(device)
        written: list[Report] = []
        for start in range(0, len(studies), WRITE_BATCH):
            written += model.write(tokens[start : start + WRITE_BATCH], tokenizer, params.decoding)
            context.progress(len(written), len(studies))
        scorer, left_out = _scorer(params, inputs, studies)
        patients = [row.patient_key for row in studies]
        train = {
            row.study_key: text[row.study_key]
            for row in inputs.studies("train", paired=True)
            if row.study_key in text
        }
        constant = constant_report(train)
        metrics = _estimates(params, scorer, written, patients, constant)
        _write(context, scorer, studies, written)
        return {
            **metrics,
            "labels": _by_finding(params, scorer, written, patients),
            "slices": by_slice(params, studies, lambda rows: _slice(params, scorer, written, patients, rows)),
            "slice_metric": "ce_f1_micro",
            "rank_by": list(RANK_BY),
            "left_out": left_out,
            "studies": len(studies),
            "empty_reports": sum(not one for one in written),
            "different_reports": len({tuple(one) for one in written}),
            "different_reference_reports": len({tuple(one) for one in scorer.references}),
            "words_per_report": _lengths(written, scorer.references),
            "bertscore": "made" if scorer.bertscore else NOT_MADE,
            "rule": f"rank by rank_by, not by surface metrics; {clinical.RULE}; {surface.RULE}",
        }


def _lengths(written: Sequence[Report], references: Sequence[Report]) -> dict[str, float]:
    sides = {"written": written, "reference": references}
    return {
        name: float(np.mean([len(surface.words(" ".join(one))) for one in reports]))
        for name, reports in sides.items()
    }


def _by_finding(
    params: ReportGenerationParams, scorer: Scorer, written: list[Report], patients: list[str]
) -> dict[str, dict[str, Any]]:
    """The F1 of each judged finding; chance: to affirm it in every report."""
    said = clinical.Findings.of_reports(written).values
    truth = clinical.Findings.of_reports(scorer.references)
    found = {}
    for name in scorer.judged:
        share = float(truth.values[:, truth.names.index(name)].mean())
        estimate = params.bootstrap().estimate(
            clinical.finding_f1(truth, said, name), patients, chance=2 * share / (1 + share), unit="f1"
        )
        found[name] = {"f1": estimate.as_dict()}
    return found


def _slice(
    params: ReportGenerationParams,
    scorer: Scorer,
    written: list[Report],
    patients: list[str],
    rows: Any,
) -> dict[str, Any]:
    """CE-F1, micro, of the studies of a slice; chance: to affirm every finding in every report."""
    said = clinical.Findings.of_reports([written[at] for at in rows]).values
    truth = clinical.Findings.of_reports([scorer.references[at] for at in rows])
    metric = clinical.clinical_efficacy(truth, said, ())["ce_f1_micro"]
    share = float(truth.values.mean())
    of = [patients[at] for at in rows]
    return params.bootstrap().estimate(metric, of, chance=2 * share / (1 + share), unit="f1").as_dict()


def _write(context: StepContext, scorer: Scorer, studies: Sequence[StudyRow], written: list[Report]) -> None:
    import pyarrow as pa

    said = clinical.Findings.of_reports(written).values
    truth = clinical.Findings.of_reports(scorer.references)
    rows = [
        {
            "study_key": row.study_key,
            "patient_key": row.patient_key,
            "written": " ".join(written[at]),
            "reference": " ".join(scorer.references[at]),
            "affirmed": [name for name, one in zip(truth.names, said[at], strict=True) if one],
            "affirmed_in_reference": [
                name for name, one in zip(truth.names, truth.values[at], strict=True) if one
            ],
        }
        for at, row in enumerate(studies)
    ]
    text = pa.string()
    fields = [("study_key", text), ("patient_key", text), ("written", pa.large_string())]
    fields += [("reference", pa.large_string())]
    lists = [(name, pa.list_(text)) for name in ("affirmed", "affirmed_in_reference")]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*fields, *lists]))
    write_table(context.out / "predictions.parquet", table)
    lines = ["finding,both,only_written,only_reference,neither"]
    for column, name in enumerate(truth.names):
        pairs = Counter(zip(said[:, column].tolist(), truth.values[:, column].tolist(), strict=True))
        counts = (pairs[1, 1], pairs[1, 0], pairs[0, 1], pairs[0, 0])
        lines.append(",".join([name, *map(str, counts)]))
    write_text(context.out / "findings.csv", "\n".join(lines) + "\n")
