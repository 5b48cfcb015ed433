"""Report generation: a causal decoder on frozen image tokens learns to write the training split's reports.

Source: VELVET-Med's and COLIPRI's downstream set-ups, with a small decoder of our own in the place of their language
models. The checkpoint is chosen on validation; the test split is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.base.errors import ConfigError, InputError
from components.base.files import write_text
from components.downstream.settings import DecoderParams, DecodingParams, FittingParams
from components.downstream.tasks import TASKS

if TYPE_CHECKING:
    import torch

    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs
    from components.downstream.report_writer import ReportWriter

VALIDATION_BATCH = 16


class ReportGenerationParams(FittingParams):
    """Which image tokens are read, the decoder, and by what the checkpoint is chosen.

    `selection`: `loss` (per token, on validation) or `ce_f1` (of greedy reports of all of validation).
    """

    scale: int
    grid: int = Field(ge=1)
    decoder: DecoderParams
    label_smoothing: float = Field(ge=0, lt=1)
    selection: Literal["loss", "ce_f1"]


class _Pairs:
    """The studies of a split with a report: image tokens and target ids."""

    def __init__(
        self, params: ReportGenerationParams, inputs: DownstreamInputs, split: str, device: torch.device
    ) -> None:
        from components.downstream.image_tokens import image_tokens
        from components.downstream.report_writer import target_ids

        text = inputs.sentences()
        rows = [row for row in inputs.studies(split, paired=True) if row.study_key in text]
        ids = target_ids([text[row.study_key] for row in rows], inputs.encoder().tokenizer)
        self.without_words = sum(not one for one in ids)
        self.rows = [row for row, one in zip(rows, ids, strict=True) if one]
        self.ids = [one for one in ids if one]
        self.reports = [text[row.study_key] for row in self.rows]
        self.tokens = image_tokens(inputs, self.rows, params.scale, params.grid, device)
        self.device, self.pad_id = device, inputs.encoder().tokenizer.pad_id
        self.max_length = params.decoder.max_length

    def batch(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image tokens, ids and next ids of some rows, on the device."""
        import torch

        from components.downstream.report_writer import padded

        ids, targets = padded([self.ids[row] for row in rows], self.pad_id, self.max_length)
        tokens = torch.from_numpy(np.array(self.tokens[list(rows)]))
        return tokens.to(self.device), ids.to(self.device), targets.to(self.device)


def _loss_per_token(model: ReportWriter, pairs: _Pairs) -> float:
    """The mean negative log-likelihood of validation's tokens; NaN without any."""
    total, count = 0.0, 0
    for start in range(0, len(pairs.rows), VALIDATION_BATCH):
        chosen = range(start, min(start + VALIDATION_BATCH, len(pairs.rows)))
        tokens, ids, targets = pairs.batch(chosen)
        known = int((targets != -100).sum())
        total += float(model.loss(tokens, ids, targets, 0.0)) * known
        count += known
    return total / count if count else float("nan")


def clinical_f1(written: Sequence[Sequence[str]], reports: Sequence[Sequence[str]]) -> float:
    """Micro F1 of the 18 findings of CT-RATE that written reports affirm, against those of the reference reports."""
    from components.downstream.facts import affirmed_findings

    said = np.array([affirmed_findings(one) for one in written])
    truth = np.array([affirmed_findings(one) for one in reports])
    both, total = int((said & truth).sum()), int(said.sum() + truth.sum())
    return 2 * both / total if total else float("nan")


def _scorer(
    params: ReportGenerationParams, model: ReportWriter, pairs: _Pairs, inputs: DownstreamInputs
) -> float:
    """What the checkpoint is chosen by: the smaller the better."""
    if params.selection == "loss":
        return _loss_per_token(model, pairs)
    greedy = DecodingParams(
        beams=1, no_repeat_ngram=0, length_penalty=1.0, max_tokens=params.decoder.max_length
    )
    written = model.write(pairs.tokens, inputs.encoder().tokenizer, greedy)
    return -clinical_f1(written, pairs.reports)


@TASKS.register("report_generation")
class ReportGeneration:
    """The task `report_generation`."""

    Params: ClassVar[type[Config]] = ReportGenerationParams

    @staticmethod
    def fit(
        params: ReportGenerationParams, inputs: DownstreamInputs, context: StepContext
    ) -> Mapping[str, Any]:
        """Write `writer.safetensors`, `writer.json` and `curves.csv`; the metrics are validation's.

        Reports without any word after tokenisation are left out, and counted.
        """
        from components.downstream.fitting import fit
        from components.downstream.image_tokens import device_of, token_statistics
        from components.downstream.report_writer import ReportWriter

        device = device_of(params.device)
        train = _Pairs(params, inputs, "train", device)
        validation = _Pairs(params, inputs, "validation", device)
        _check(params, inputs, train)
        mean, scale = token_statistics(train.tokens)
        tokenizer = inputs.encoder().tokenizer
        model = ReportWriter(params.decoder, tokenizer.vocab_size, mean, scale, params.seed).to(device)

        def loss_of(generator: np.random.Generator) -> torch.Tensor:
            rows = generator.choice(
                len(train.rows), params.batch_size, replace=len(train.rows) < params.batch_size
            )
            return model.loss(*train.batch(rows.tolist()), params.label_smoothing)

        fitted = fit(
            model,
            loss_of,
            lambda: _scorer(params, model, validation, inputs),
            params,
            context,
            "report_generation",
        )
        model.save(
            context.out,
            scale=params.scale,
            grid=params.grid,
            model_sha256=inputs.model_hash(),
            seed=params.seed,
        )
        write_text(context.out / "curves.csv", fitted.csv())
        losses = [value for _, name, value in fitted.curve if name == "report_generation"]
        return {
            "training_studies": len(train.rows),
            "validation_studies": len(validation.rows),
            "reports_without_words": train.without_words + validation.without_words,
            "reports_cut": sum(len(ids) - 1 > params.decoder.max_length for ids in train.ids),
            "image_tokens": mean.shape[0],
            "loss_first": float(np.mean(losses[:5])),
            "loss_last": float(np.mean(losses[-5:])),
            "selection": params.selection,
            "best_step": fitted.best_step,
            "validation_value": fitted.best_value,
            "parameters": sum(value.numel() for value in model.parameters()),
        }


def _check(params: ReportGenerationParams, inputs: DownstreamInputs, train: _Pairs) -> None:
    if not train.rows:
        raise InputError(
            "no training study has a report",
            rule="report_generation.empty",
            fix="use paired studies, or take report_generation out of finetune",
        )
    longest = inputs.encoder().tokenizer.max_length
    if params.decoder.max_length > longest + 1:
        raise ConfigError(
            f"the decoder's max_length is {params.decoder.max_length}, reports are cut at {longest} pieces",
            rule="report_generation.max_length",
            fix=f"set finetune.report_generation.decoder.max_length to at most {longest}",
        )
