"""Visual question answering on the test split: all questions about all test studies, none sampled.

Language alone answers much: the same model trained without the image (`question_only`) stands beside every figure,
and `image_gain` is what the image adds, with an interval over the same resampled patients. Macro AUROC over findings
is the headline: a model that only knows how frequent findings are has 0.5 there in expectation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.base.files import write_table
from components.downstream.settings import DecodingParams
from components.evaluation import statistics as st
from components.evaluation import text_metrics as text
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, by_slice, sigmoid

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.answering import Answerer, Gallery
    from components.downstream.inputs import DownstreamInputs, StudyRow
    from components.downstream.questions import Question

BATCH = 64
HEADLINES = (
    ("yes_no", "macro_auroc"),
    ("yes_no", "accuracy"),
    ("closed", "accuracy"),
    ("open", "exact_match"),
)
RULE = (
    "rank by macro AUROC and image_gain; chance: the training split's most frequent answer to the topic (accuracy, "
    "open answers; closed: or one over the number of options where that is more), a coin that says yes as often "
    "(sensitivity, specificity, PPV, NPV), always yes (F1); thresholds from validation"
)


class VqaParams(ProtocolParams):
    """How open answers are written, and how many yes and no answers a topic needs in test for its AUROC."""

    decoding: DecodingParams
    min_test: int = Field(ge=1)
    device: Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Answers:
    """One model's answers to the questions of a kind: words, and for yes/no logits with who is called positive."""

    questions: list[Question]
    words: list[str]
    logits: st.Array
    chosen: npt.NDArray[np.int64]

    @property
    def right(self) -> st.Array:
        """1 for a right answer, else 0."""
        pairs = zip(self.words, self.questions, strict=True)
        return np.array([float(normal(said) == normal(one.answer)) for said, one in pairs])


def normal(answer: str) -> str:
    """An answer without regard to case, punctuation and spaces."""
    return " ".join(text.words(answer))


def _answer(
    params: VqaParams,
    model: Answerer,
    thresholds: Mapping[str, float],
    questions: list[Question],
    gallery: Gallery,
) -> Answers:
    """Answer the questions of one kind."""
    from components.downstream.answering import choices_of, in_batches, logits_of

    nothing = np.zeros(0)
    kind = questions[0].kind
    if kind == "yes_no":
        logits = logits_of(model, questions, gallery, BATCH)
        limits = np.array([thresholds.get(one.topic, thresholds[""]) for one in questions])
        said = (logits >= limits).astype(np.int64)
        return Answers(questions, ["yes" if one else "no" for one in said], logits, said)
    if kind == "closed":
        chosen = choices_of(model, questions, gallery, BATCH)
        words = [one.options[at] for one, at in zip(questions, chosen, strict=True)]
        return Answers(questions, words, nothing, np.array(chosen, dtype=np.int64))
    written: list[str] = []
    for part in in_batches(questions, BATCH):
        written += model.write(part, gallery.of(part), params.decoding)
    return Answers(questions, written, nothing, np.zeros(0, dtype=np.int64))


def _metrics(params: VqaParams, answers: Answers) -> dict[str, st.Metric]:
    """The metrics of one kind's answers, as functions of the questions' weights."""
    kind = answers.questions[0].kind
    right = answers.right
    if kind == "closed":
        return {"accuracy": st.weighted_mean(right)}
    truth = [one.answer for one in answers.questions]
    if kind == "open":
        return {
            "exact_match": st.weighted_mean(right),
            "bleu_1": text.bleu(answers.words, truth, 1),
            "rouge_1": text.rouge_1(answers.words, truth),
            "meteor": text.meteor(answers.words, truth),
        }
    target = np.array([one.target for one in answers.questions], dtype=np.float64)
    said = answers.chosen.astype(np.float64)
    return {
        "macro_auroc": st.macro(
            (st.auroc(target[rows], answers.logits[rows]), rows)
            for rows in _topics(answers.questions, params.min_test).values()
        ),
        "auroc": st.auroc(target, answers.logits),
        "accuracy": st.weighted_mean(right),
        "f1": st.f1_score(target, said),
        "sensitivity": st.weighted_mean(np.where(target == 1, said, np.nan)),
        "specificity": st.weighted_mean(np.where(target == 0, 1 - said, np.nan)),
        "ppv": st.weighted_mean(np.where(said == 1, target, np.nan)),
        "npv": st.weighted_mean(np.where(said == 0, 1 - target, np.nan)),
    }


def _topics(questions: Sequence[Question], least: int) -> dict[str, npt.NDArray[np.intp]]:
    """The rows of each yes/no topic that has enough of both answers."""
    found = {}
    for topic in sorted({one.topic for one in questions}):
        rows = np.array([at for at, one in enumerate(questions) if one.topic == topic], dtype=np.intp)
        positive = sum(questions[at].target for at in rows)
        if min(positive, len(rows) - positive) >= least:
            found[topic] = rows
    return found


def _chance(params: VqaParams, answers: Answers, frequent: Mapping[tuple[str, str], str]) -> dict[str, float]:
    """What no knowledge of the study reaches, by metric."""
    questions = answers.questions
    kind = questions[0].kind
    guess = [frequent.get((kind, one.topic), "") for one in questions]
    ignorant = Answers(questions, guess, np.zeros(len(questions)), np.zeros(len(questions), dtype=np.int64))
    prior = float(ignorant.right.mean())
    if kind == "closed":
        return {"accuracy": max(prior, float(np.mean([1 / len(one.options) for one in questions])))}
    if kind == "open":
        return _values(_metrics(params, ignorant), len(questions))
    share = float(np.mean([one.target for one in questions]))
    said = float(answers.chosen.mean())
    coin = {"sensitivity": said, "specificity": 1 - said, "ppv": share, "npv": 1 - share}
    ranks = {"macro_auroc": 0.5, "auroc": 0.5, "f1": 2 * share / (1 + share)}
    return {**ranks, **coin, "accuracy": prior}


def _values(metrics: Mapping[str, st.Metric], count: int) -> dict[str, float]:
    return {name: float(metric(np.ones((1, count)))[0]) for name, metric in metrics.items()}


def frequent_answers(questions: Sequence[Question]) -> dict[tuple[str, str], str]:
    """(kind, topic) -> the answer that the (training) questions have most often; of equals the first by name."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    for one in questions:
        counted.setdefault((one.kind, one.topic), Counter())[one.answer] += 1
    return {key: min(found, key=lambda one: (-found[one], one)) for key, found in counted.items()}


@PROTOCOLS.register("vqa")
class Vqa:
    """The protocol `vqa`."""

    Params: ClassVar[type[Config]] = VqaParams

    @staticmethod
    def evaluate(params: VqaParams, inputs: DownstreamInputs, context: StepContext) -> Mapping[str, Any]:
        """Write `predictions.parquet`; metrics by kind of question, of the question-only model, and the gain."""
        from components.downstream.answering import Gallery
        from components.downstream.image_tokens import device_of, image_tokens
        from components.downstream.questions import QuestionMaker, Topics
        from components.downstream.tasks.vqa import load_answerers

        models, settings = load_answerers(inputs)
        maker = QuestionMaker(inputs, settings["labels"], settings["seed"])
        topics, kinds = Topics.of_dict(settings["topics"]), settings["kinds"]
        studies = {row.study_key: row for row in inputs.studies("test")}
        questions = maker.ask(list(studies), topics, kinds)
        if not questions:
            raise InputError(
                "there is nothing to ask about the test split",
                rule="vqa.questions",
                fix="use more labelled studies, or a larger test fraction",
            )
        device = device_of(params.device)
        tokens = image_tokens(inputs, list(studies.values()), settings["scale"], settings["grid"], device)
        gallery = Gallery(tokens, list(studies), device)
        train = [row.study_key for row in inputs.studies("train")]
        frequent = frequent_answers(maker.ask(train, topics, kinds))
        found: dict[str, dict[str, Answers]] = {}
        asked = {kind: [one for one in questions if one.kind == kind] for kind in kinds}
        for done, (kind, some) in enumerate(asked.items(), 1):
            if some:
                found[kind] = {
                    name: _answer(params, model.to(device), settings["thresholds"][name], some, gallery)
                    for name, model in models.items()
                }
            context.progress(done, len(asked), "kinds")
        _write(context, studies, found)
        return {
            **_summary(params, studies, found, frequent),
            "slices": _slices(params, studies, found),
            "slice_metric": "yes_no_accuracy",
            "questions": {kind: len(some) for kind, some in asked.items()},
            "studies": len({one.study_key for one in questions}),
            "label_source": settings["labels"],
            "rank_by": ["yes_no.macro_auroc", "image_gain.yes_no.macro_auroc", "image_gain.closed.accuracy"],
            "rule": RULE,
        }


def _summary(
    params: VqaParams,
    studies: Mapping[str, StudyRow],
    found: Mapping[str, Mapping[str, Answers]],
    frequent: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """By kind: every metric of the seeing model; the headlines of the blind one; their difference; by topic."""
    estimate = params.bootstrap().estimate
    summary: dict[str, Any] = {"question_only": {}, "image_gain": {}, "labels": {}}
    for kind, by_model in found.items():
        answers = by_model["model"]
        patients = [studies[one.study_key].patient_key for one in answers.questions]
        seeing, blind = (_metrics(params, by_model[name]) for name in ("model", "question_only"))
        chance = {name: _chance(params, by_model[name], frequent) for name in by_model}
        summary[kind] = {
            name: estimate(metric, patients, chance=chance["model"].get(name), unit=name).as_dict()
            for name, metric in seeing.items()
        }
        for name in (name for of, name in HEADLINES if of == kind):
            alone = estimate(blind[name], patients, chance=chance["question_only"].get(name), unit=name)
            gain = estimate(
                difference(seeing[name], blind[name]), patients, chance=0.0, unit=f"{name} difference"
            )
            summary["question_only"].setdefault(kind, {})[name] = alone.as_dict()
            summary["image_gain"].setdefault(kind, {})[name] = gain.as_dict()
        summary["labels"] |= {
            f"{kind}: {name}": one for name, one in _by_topic(params, answers, patients).items()
        }
    return summary


def difference(first: st.Metric, second: st.Metric) -> st.Metric:
    """One metric less the other on the same resampled patients."""
    return lambda weights: first(weights) - second(weights)


def _by_topic(params: VqaParams, answers: Answers, patients: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Accuracy of each topic, and AUROC where yes and no are frequent enough."""
    estimate = params.bootstrap().estimate
    right = answers.right
    enough = _topics(answers.questions, params.min_test) if answers.questions[0].kind == "yes_no" else {}
    found: dict[str, dict[str, Any]] = {}
    for topic in sorted({one.topic for one in answers.questions}):
        rows = np.array([at for at, one in enumerate(answers.questions) if one.topic == topic], dtype=np.intp)
        of = [patients[at] for at in rows]
        count = Counter(answers.questions[at].answer for at in rows)
        share = max(count.values()) / len(rows)
        found[topic] = {
            "accuracy": estimate(st.weighted_mean(right[rows]), of, chance=share, unit="accuracy").as_dict()
        }
        if topic in enough:
            target = [answers.questions[at].target for at in rows]
            auroc = st.auroc(target, answers.logits[rows])
            found[topic]["auroc"] = estimate(auroc, of, chance=0.5, unit="auroc").as_dict()
    return found


def _slices(
    params: VqaParams, studies: Mapping[str, StudyRow], found: Mapping[str, Mapping[str, Answers]]
) -> dict[str, dict[str, Any]]:
    """The accuracy of yes/no answers by sex, age band, source and provenance."""
    if "yes_no" not in found:
        return {}
    answers = found["yes_no"]["model"]
    right = answers.right
    rows = [studies[one.study_key] for one in answers.questions]

    def measure(chosen: npt.NDArray[np.intp]) -> dict[str, Any]:
        target = np.array([answers.questions[at].target for at in chosen])
        share = float(max(target.mean(), 1 - target.mean()))
        of = [rows[at].patient_key for at in chosen]
        metric = st.weighted_mean(right[chosen])
        return params.bootstrap().estimate(metric, of, chance=share, unit="accuracy").as_dict()

    return by_slice(params, rows, measure)


def _write(
    context: StepContext, studies: Mapping[str, StudyRow], found: Mapping[str, Mapping[str, Answers]]
) -> None:
    import pyarrow as pa

    rows = []
    for kind, by_model in found.items():
        answers, blind = by_model["model"], by_model["question_only"]
        for at, one in enumerate(answers.questions):
            rows.append(
                {
                    "study_key": one.study_key,
                    "patient_key": studies[one.study_key].patient_key,
                    "kind": kind,
                    "topic": one.topic,
                    "question": one.text,
                    "options": list(one.options),
                    "answer": one.answer,
                    "said": answers.words[at],
                    "said_without_image": blind.words[at],
                    "score": sigmoid(float(answers.logits[at])) if kind == "yes_no" else None,
                }
            )
    string = pa.string()
    names = ("study_key", "patient_key", "kind", "topic", "question")
    fields = [*((name, string) for name in names), ("options", pa.list_(string))]
    fields += [
        *((name, string) for name in ("answer", "said", "said_without_image")),
        ("score", pa.float64()),
    ]
    write_table(context.out / "predictions.parquet", pa.Table.from_pylist(rows, schema=pa.schema(fields)))
