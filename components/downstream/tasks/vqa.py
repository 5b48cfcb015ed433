"""Visual question answering: yes/no, closed and open questions, with a model that never sees the image beside it.

Source: VELVET-Med's downstream set-up (see `components.downstream.answering`). The blind model is trained the same
way from the same start; what the image adds is what the seeing model has over it. Topics, checkpoints and thresholds
come from train and validation; the test split is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError, IntegrityError
from components.base.files import write_bytes, write_json, write_text
from components.downstream.settings import DecoderParams, FittingParams
from components.downstream.tasks import TASKS
from components.downstream.thresholds import ThresholdRule, best_threshold

if TYPE_CHECKING:
    import torch

    from components.base.step import StepContext
    from components.downstream.answering import Answerer, Gallery
    from components.downstream.inputs import DownstreamInputs
    from components.downstream.questions import Kind, Question
    from components.encoders.tokenization import ReportTokenizer

TENSORS, SETTINGS = "vqa.safetensors", "vqa.json"
VALIDATION_BATCH = 64
MODELS = {"model": False, "question_only": True}
"""The two that are trained, and whether they are blind."""


class VqaParams(FittingParams):
    """What is asked, of which image tokens, and how it is learnt.

    `batch_size` questions of each kind a step; `min_train` studies that an answer needs for its topic to be asked;
    `validation_questions` at most of each kind are asked to choose the checkpoint (evenly spaced).
    """

    labels: Literal["gold", "report"]
    kinds: tuple[Literal["yes_no", "closed", "open"], ...] = Field(min_length=1)
    min_train: int = Field(ge=1)
    scale: int
    grid: int = Field(ge=1)
    decoder: DecoderParams
    threshold: ThresholdRule
    validation_questions: int = Field(ge=1)


def _split(questions: Sequence[Question], kinds: Sequence[Kind]) -> dict[Kind, list[Question]]:
    found = {kind: [one for one in questions if one.kind == kind] for kind in kinds}
    return {kind: asked for kind, asked in found.items() if asked}


def _learnable(questions: list[Question], tokenizer: ReportTokenizer) -> tuple[list[Question], int]:
    """The questions without the open ones whose answer has no word in the vocabulary, and how many those are.

    They are asked in test all the same, where no decoder of this vocabulary can be right.
    """
    from components.downstream.report_writer import target_ids

    answers = list(dict.fromkeys(one.answer for one in questions if one.kind == "open"))
    known = target_ids([[answer] for answer in answers], tokenizer)
    lost = {answer for answer, ids in zip(answers, known, strict=True) if not ids}
    kept = [one for one in questions if one.kind != "open" or one.answer not in lost]
    return kept, len(questions) - len(kept)


def _spaced(questions: list[Question], most: int) -> list[Question]:
    if len(questions) <= most:
        return questions
    return [questions[at] for at in np.linspace(0, len(questions) - 1, most).round().astype(int)]


def _validation_loss(model: Answerer, asked: Mapping[Kind, list[Question]], gallery: Gallery) -> float:
    """The sum over kinds of the mean loss; NaN where nothing is asked."""
    from components.downstream.answering import in_batches

    total = 0.0
    for questions in asked.values():
        parts = in_batches(questions, VALIDATION_BATCH)
        losses = [float(model.loss(part, gallery.of(part))) * len(part) for part in parts]
        total += sum(losses) / len(questions)
    return total if asked else float("nan")


def _thresholds(
    params: VqaParams, model: Answerer, questions: list[Question], gallery: Gallery
) -> dict[str, float]:
    """The threshold on the logit of each topic that validation has both answers of; "" is for the others."""
    from components.downstream.answering import logits_of

    logits = logits_of(model, questions, gallery, VALIDATION_BATCH)
    target = np.array([question.target for question in questions])
    topics = np.array([question.topic for question in questions])
    chosen = {"": 0.0}
    for topic in ("", *sorted(set(topics.tolist()))):
        rows = np.flatnonzero(topics == topic) if topic else np.arange(len(topics))
        if len(rows) and target[rows].min() != target[rows].max():
            chosen[topic] = best_threshold(target[rows], logits[rows], params.threshold)
    return chosen


@TASKS.register("vqa")
class Vqa:
    """The task `vqa`."""

    Params: ClassVar[type[Config]] = VqaParams

    @staticmethod
    def fit(params: VqaParams, inputs: DownstreamInputs, context: StepContext) -> Mapping[str, Any]:
        """Write `vqa.safetensors` (both models), `vqa.json` and `curves.csv`; the metrics are validation's."""
        from components.downstream.answering import Answerer, Gallery
        from components.downstream.fitting import fit
        from components.downstream.image_tokens import device_of, image_tokens, token_statistics
        from components.downstream.questions import QuestionMaker

        device = device_of(params.device)
        maker = QuestionMaker(inputs, params.labels, params.seed)
        rows = {part: inputs.studies(part) for part in ("train", "validation")}
        topics = maker.topics([row.study_key for row in rows["train"]], params.min_train)
        asked, galleries, mean, scale, not_writable = {}, {}, None, None, 0
        for part, studies in rows.items():
            keys = [row.study_key for row in studies]
            questions, without = _learnable(maker.ask(keys, topics, params.kinds), inputs.encoder().tokenizer)
            asked[part] = _split(questions, params.kinds)
            not_writable += without
            tokens = image_tokens(inputs, studies, params.scale, params.grid, device)
            galleries[part] = Gallery(tokens, keys, device)
            if part == "train":
                mean, scale = token_statistics(tokens)
        if not asked["train"] or mean is None or scale is None:
            raise InputError(
                f"the training split's {params.labels} labels make no question",
                rule="vqa.questions",
                fix="lower finetune.vqa.min_train, use other labels or more studies",
            )
        checked = {
            kind: _spaced(found, params.validation_questions) for kind, found in asked["validation"].items()
        }
        models, metrics, curves = {}, {}, []
        for name, blind in MODELS.items():
            model = Answerer(inputs.encoder(), params.decoder, mean, scale, blind=blind, seed=params.seed).to(
                device
            )

            def loss_of(generator: np.random.Generator, model: Answerer = model) -> torch.Tensor:
                return _step_loss(params, model, asked["train"], galleries["train"], generator)

            def validate(model: Answerer = model) -> float:
                return _validation_loss(model, checked, galleries["validation"])

            fitted = fit(model, loss_of, validate, params, context, "vqa")
            models[name] = model
            curves += [f"{step},{name}.{what},{value:.6f}" for step, what, value in fitted.curve]
            metrics[name] = {"best_step": fitted.best_step, "validation_loss": fitted.best_value}
        thresholds = {
            name: _thresholds(params, model, asked["validation"].get("yes_no", []), galleries["validation"])
            for name, model in models.items()
        }
        _save(params, inputs, context, models, {"topics": topics.as_dict(), "thresholds": thresholds})
        write_text(context.out / "curves.csv", "\n".join(["step,name,value", *curves]) + "\n")
        return {
            **metrics,
            "fused": models["model"].fused,
            "topics": {name: len(found) for name, found in topics.as_dict().items()},
            "questions": {
                part: {kind: len(one) for kind, one in found.items()} for part, found in asked.items()
            },
            "open_answers_not_writable": not_writable,
            "trained_parameters": sum(
                one.numel() for one in models["model"].parameters() if one.requires_grad
            ),
        }


def _step_loss(
    params: VqaParams,
    model: Answerer,
    asked: Mapping[Kind, list[Question]],
    gallery: Gallery,
    generator: np.random.Generator,
) -> torch.Tensor:
    """The sum over kinds of the mean loss of `batch_size` questions drawn at random."""
    import torch

    total = []
    for questions in asked.values():
        size = min(params.batch_size, len(questions))
        chosen = [questions[int(at)] for at in generator.choice(len(questions), size, replace=False)]
        total.append(model.loss(chosen, gallery.of(chosen)))
    return torch.stack(total).sum()


def _save(
    params: VqaParams,
    inputs: DownstreamInputs,
    context: StepContext,
    models: Mapping[str, Answerer],
    chosen: Mapping[str, Any],
) -> None:
    from safetensors.torch import save

    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, model in models.items()
        for key, value in sorted(model.own_state().items())
    }
    write_bytes(context.out / TENSORS, save(tensors))
    settings = {name: getattr(params, name) for name in ("labels", "kinds", "scale", "grid", "seed")}
    about = {"decoder": params.decoder.model_dump(), "model_sha256": inputs.model_hash()}
    write_json(context.out / SETTINGS, {**settings, **about, **chosen})


def load_answerers(inputs: DownstreamInputs) -> tuple[dict[str, Answerer], dict[str, Any]]:
    """The seeing and the question-only model that the task saved, and its settings; another encoder's is refused."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from components.base.files import missing_input, read_json
    from components.downstream.answering import Answerer

    folder = inputs.artifact("finetune", "vqa")
    settings = read_json(folder / SETTINGS)
    if not (folder / TENSORS).exists():
        raise missing_input(folder / TENSORS)
    again = "run finetune --task vqa again"
    try:
        if settings["model_sha256"] != inputs.model_hash():
            raise IntegrityError(
                "the answering models were made with another encoder", rule="vqa.model", fix=again
            )
        tensors = load_file(folder / TENSORS)
        decoder = DecoderParams.model_validate(settings["decoder"])
        models = {}
        for name, blind in MODELS.items():
            state = {
                key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{name}.")
            }
            mean, scale = state["token_mean"].numpy(), state["token_scale"].numpy()
            models[name] = Answerer(inputs.encoder(), decoder, mean, scale, blind=blind)
            models[name].load_own_state(state)
            models[name].eval()
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        raise IntegrityError(
            "the answering models' files do not fit together", rule="vqa.format", fix=again
        ) from None
    return models, dict(settings)
