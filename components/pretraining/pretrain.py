"""Train both encoders on the train split: objectives, validation, exact resume; writes artifacts/pretrain.

Run it alone with `python -m components.pretraining.pretrain`. It leaves `encoder/` (what `from_pretrained` reads),
`curves.csv` and `metrics.json`. A run that was interrupted goes on where it was when the stage runs again with
the same parameters and data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from components.base.errors import InputError
from components.base.step import Step, StepContext
from components.pretraining.launch import MALLOC, main, tune_memory
from components.pretraining.settings import Params

if TYPE_CHECKING:
    from torch import Tensor

    from components.encoders.tokenization import ReportTokenizer
    from components.pretraining.data import StudyDataset
    from components.pretraining.engine import Outcome
    from components.pretraining.studies import Cohort
    from components.volumes.contract import Contract

__all__ = ["MALLOC", "STEP", "Params", "run"]


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Train, keep the encoder, and answer the metrics."""
    from components.pretraining.checkpoint import CheckpointStore
    from components.pretraining.data import require_inputs
    from components.pretraining.devices import is_split, make_fabric, weight_tensors
    from components.pretraining.engine import Trainer
    from components.pretraining.module import PretrainModule, make_objectives
    from components.pretraining.studies import read_cohort
    from components.volumes.contract import Contract

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    contract = Contract.load(context.artifacts("preprocess") / "contract.json")
    cohort = read_cohort(context, contract.report_fields)
    refuse_leaks(context)
    fabric = make_fabric(params)
    fabric.launch()
    tokenizer = train_tokenizer(params, cohort)
    encoder = _build(params, tokenizer, contract, cohort)
    identity = {
        "params": params.of_the_result(),
        "contract": contract.model_dump(mode="json"),
        "data_hash": cohort.data_hash,
    }
    store = CheckpointStore(context.root, identity)
    context.log.info(
        "run %s: %d paired and %d image-only studies",
        store.run_hash,
        cohort.count("train", paired=True),
        cohort.count("train", paired=False),
    )
    objectives = make_objectives(params.objectives, encoder, params.seed)
    needs = {name: cast("Any", objective).needs for name, objective in objectives.items()}
    require_inputs(needs, cohort.splits["train"], params.organ_mask)
    module = PretrainModule(encoder, objectives, params.seed, params.micro_batch_size, fabric.global_rank)
    place, on_gpu = (fabric.global_rank, fabric.world_size), fabric.device.type == "cuda"
    data = Data(params, context, contract, tokenizer, cohort, *place, pinned=on_gpu)
    if params.standardise_input:
        from components.pretraining.initial import standardise_input

        context.log.info(
            "input: mean %.3f, deviation %.3f", *standardise_input(encoder.vision, data.sample())
        )
    outcome = Trainer(module, params, store, context, fabric).run(data.batches, data.validate)
    metrics = _metrics(params, cohort, encoder, outcome, data.rows_in_step)
    if is_split(module):
        weights = weight_tensors(encoder)  # every process takes part
        encoder = _build(params, tokenizer, contract, cohort)
        encoder.load_state_dict(weights)
    if fabric.is_global_zero:
        write_curves(context, outcome)
        encoder.save_pretrained(context.out / "encoder", card=_card(params, cohort, metrics))
        store.remove()
    fabric.barrier()
    return metrics


class Data:
    """Batches of training and validation for one process."""

    def __init__(
        self,
        params: Params,
        context: StepContext,
        contract: Contract,
        tokenizer: ReportTokenizer,
        cohort: Cohort,
        rank: int = 0,
        world: int = 1,
        pinned: bool = False,
    ) -> None:
        from components.pretraining.data import collator
        from components.pretraining.schedule import Schedule
        from components.volumes.store import VolumeStore

        self.params, self.contract, self.cohort = params, contract, cohort
        self.rank, self.pinned = rank, pinned
        self.store = VolumeStore(context.artifacts("preprocess"))
        self.collate = collator(tokenizer)
        self.schedule = Schedule(
            params.seed,
            cohort.count("train", paired=True),
            cohort.count("train", paired=False),
            params.batch_size,
            params.image_only_fraction,
            world,
            cohort.count_kind("train", "text_only"),
            params.text_only_fraction,
            _balance(params, cohort),
        )

    @property
    def rows_in_step(self) -> int:
        """Rows of all processes in a step."""
        return sum(self.schedule.rows) * self.schedule.world

    def _dataset(self, split: str, augmented: bool) -> StudyDataset:
        from components.pretraining.data import StudyDataset

        params = self.params
        return StudyDataset(
            self.cohort.splits[split],
            self.store,
            self.contract,
            params.crop_size,
            params.seed,
            params.augment if augmented else None,
            params.cache_bytes,
            params.organ_mask,
        )

    def sample(self) -> Tensor:
        """The global views of the first studies of the train split, as many as a step has rows."""
        from components.pretraining.schedule import Draw

        dataset = self._dataset("train", augmented=False)
        count = min(len(dataset), self.params.batch_size)
        batch = self.collate([dataset[Draw(0, 0, study)] for study in range(count)])
        volumes: Tensor = batch["volume"]
        return volumes

    def batches(self, start: int) -> Iterator[dict[str, Any]]:
        """The batches of training from step `start` on, the same for any number of workers."""
        from torch.utils.data import DataLoader

        from components.pretraining.schedule import ScheduledBatches

        dataset = self._dataset("train", augmented=True)
        loader: DataLoader[Any] = DataLoader(
            cast("Any", dataset),
            batch_sampler=ScheduledBatches(self.schedule, start, self.params.num_steps, self.rank),
            collate_fn=self.collate,
            num_workers=self.params.num_workers,
            pin_memory=self.pinned,
        )
        return iter(loader)

    def validate(self, module: Any, move: Any) -> dict[str, float]:
        """Losses and retrieval of the validation split, over the same batches every time."""
        from components.pretraining.evaluation import fixed_batches, validate

        dataset = self._dataset("validation", augmented=False)
        return validate(module, fixed_batches(dataset, self.collate, self.params.batch_size), move)


def _balance(params: Params, cohort: Cohort) -> tuple[float, ...] | None:
    """How often each paired study is wanted, by what its report says; None draws all equally often."""
    from components.pretraining.schedule import class_weights

    if not params.class_balance:
        return None
    paired = [study.findings for study in cohort.splits["train"] if study.paired]
    return class_weights(paired, params.class_balance)


def refuse_leaks(context: StepContext) -> None:
    """Stop before training if a patient, a study or a near-duplicate lies on both sides of the split."""
    from components.cohort.leaks import find_leaks, require_no_leaks

    require_no_leaks(find_leaks(context))


def train_tokenizer(params: Params, cohort: Cohort) -> ReportTokenizer:
    """A tokenizer of the train split's reports and of no other, or that of `tokenizer.folder`."""
    from components.encoders.tokenization import ReportTokenizer

    limits = params.tokenizer.model_dump(exclude={"vocab_size", "folder"})
    if params.tokenizer.folder:
        return ReportTokenizer.from_folder(Path(params.tokenizer.folder), **limits)
    texts = [sentence for study in cohort.splits["train"] for sentence in study.sentences]
    if not texts:
        raise InputError(
            "no study of the train split has a report",
            rule="pretrain.reports",
            fix="see the quarantine of check_reports; image-only studies alone train no text encoder",
        )
    return ReportTokenizer.train(texts, params.tokenizer.vocab_size, **limits)


def _build(params: Params, tokenizer: ReportTokenizer, contract: Contract, cohort: Cohort) -> Any:
    from components.encoders import build

    bound = contract.model_copy(update={"data_hash": cohort.data_hash})
    return build(params.vision, params.text, params.embed_dim, tokenizer, bound, seed=params.seed)


def write_curves(context: StepContext, outcome: Outcome) -> None:
    """`curves.csv` with the columns step, name, value: a row a number."""
    from components.base.files import write_text

    rows = [f"{step},{name},{value!r}" for step, name, value in outcome.curves]
    write_text(context.out / "curves.csv", "\n".join(["step,name,value", *rows]) + "\n")


def _metrics(
    params: Params, cohort: Cohort, encoder: Any, outcome: Outcome, rows_in_step: int
) -> dict[str, Any]:
    named = {f"train_{name}": value for name, value in outcome.losses.items()}
    named |= {f"validation_{name}": value for name, value in outcome.validation.items()}
    return {
        **{name: float(f"{value:.6g}") for name, value in named.items()},
        "num_steps": params.num_steps,
        "kept_step": outcome.kept_step,
        "num_parameters": sum(value.numel() for value in encoder.parameters()),
        "num_volumes_seen": params.num_steps * rows_in_step,
        "num_train_paired": cohort.count("train", paired=True),
        "num_train_image_only": cohort.count("train", paired=False),
        "num_validation_paired": cohort.count("validation", paired=True),
    }


def _card(params: Params, cohort: Cohort, metrics: Mapping[str, Any]) -> str:
    """A model card in Markdown from what was trained, on what, and how it did on the validation split."""
    origin = {study.provenance for study in cohort.splits["train"]}
    weights = {name: values.get("weight", 1.0) for name, values in sorted(params.objectives.items())}
    lines = [
        "# Velvet encoder",
        "",
        "A 3D vision encoder and a report encoder that share one embedding space, pre-trained on CT and reports.",
        "For research; not a medical device, not for clinical use.",
        "",
        "## Training",
        f"- Encoders: {params.vision['name']} and {params.text['name']}, {metrics['num_parameters']:,} parameters,"
        f" {params.embed_dim} shared dimensions",
        "- Objectives (weight): " + ", ".join(f"{name} ({weight:g})" for name, weight in weights.items()),
        f"- {params.num_steps} steps, learning rate {params.learning_rate:g} (cosine), precision {params.precision},"
        f" seed {params.seed}",
        f"- Data: {metrics['num_train_paired']} paired and {metrics['num_train_image_only']} image-only studies"
        f" ({', '.join(sorted(origin))}), hash {cohort.data_hash}",
        "",
        "## Validation split",
        *(
            f"- {name}: {value:g}"
            for name, value in sorted(metrics.items())
            if name.startswith("validation_")
        ),
        "",
        "## Limits",
        "- Input must be prepared by the contract in contract.json; anything else is refused.",
        "- Trained on one cohort; nothing is known of other scanners, languages or populations.",
        *(
            ["- Synthetic volumes and reports: the numbers say nothing of real patients."]
            if "synthetic" in origin
            else []
        ),
    ]
    return "\n".join(lines)


STEP = Step("pretrain", Params, run)

if __name__ == "__main__":
    tune_memory()
    raise SystemExit(main(STEP))
