"""The block `pretrain` of params.yaml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from components.base.config import Config

NOT_OF_THE_RESULT = frozenset(
    {"resume", "checkpoint_every_steps", "num_workers", "prefetch_batches", "cache_bytes"}
)
"""Parameters that change how a run goes, not what it gives: no part of a run's hash."""


class Augment(Config):
    """Random changes of a training volume that keep its sides; all 0 (and 1 for text) switches them off.

    `cut` is the largest share of an axis taken off its ends (a shift; with the "area" view a zoom too);
    `gain`, `offset` and `noise` act on the model's input range: times 1 +- gain, plus +- offset, Gaussian noise of
    a deviation up to `noise`. `keep_sentences` is the least share of a report's sentences that is kept;
    `shorten_sentences` is the probability that a sentence loses a tail without a finding, `shuffle_sentences` that a
    report's sentences come in another order (`components.reports.augment`).
    """

    cut: float = Field(default=0.0, ge=0, lt=0.5)
    gain: float = Field(default=0.0, ge=0, lt=1)
    offset: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)
    keep_sentences: float = Field(default=1.0, gt=0, le=1)
    shorten_sentences: float = Field(default=0.0, ge=0, le=1)
    shuffle_sentences: float = Field(default=0.0, ge=0, le=1)


class TokenizerParams(Config):
    """The tokenizer: trained on the train split's reports only, or read from a local `folder` of a BERT."""

    folder: str | None
    vocab_size: int = Field(gt=0)
    max_length: int = Field(gt=1)
    max_sentences: int = Field(gt=0)
    max_sentence_pieces: int = Field(gt=0)


class Params(Config):
    """What is trained, on what, and how.

    `vision`, `text` and the entries of `objectives` hold the parameters of the registered part; an objective that
    is absent or has weight 0 is not in the graph. `learning_rate` falls as a cosine, step by step, to
    `final_learning_rate` after `warmup_steps` of linear growth. `clip_gradient` 0 switches clipping off.
    `standardise_input` folds the training volumes' mean and deviation into the first weights (`initial`).
    `num_steps` 0 trains nothing: the encoders as they are made are saved, with their validation figures.
    `micro_batch_size` is how many rows an encoder takes at a time (`microbatch`), 0 all of them. `strategy` says how
    `devices` (a machine) times `num_nodes` processes share the work: "auto" is DDP for more than one; FSDP splits
    the weights too. `prefetch_batches` are read ahead by a thread where `num_workers` is 0.
    `text_only_fraction` reports without a volume come with a batch, as a share of its size. `class_balance` 0 draws
    studies equally often, 1 draws so that every finding (or none) comes equally often. `organ_mask` names the label
    map that `organ_contrast` reads, null reads none.
    `keep` says whose weights are saved: the "last" step's or the "best" by the total validation loss.
    `resume`: "auto" goes on with an interrupted run of exactly these parameters and data, "never" starts
    afresh, a run's hash goes on with that run or refuses with the difference.
    """

    seed: int
    vision: dict[str, Any]
    text: dict[str, Any]
    embed_dim: int = Field(gt=0)
    tokenizer: TokenizerParams
    objectives: dict[str, dict[str, Any]]
    standardise_input: bool
    crop_size: tuple[int, int, int]
    augment: Augment
    batch_size: int = Field(gt=0)
    micro_batch_size: int = Field(default=0, ge=0)
    image_only_fraction: float = Field(ge=0, lt=1)
    text_only_fraction: float = Field(default=0.0, ge=0, lt=1)
    class_balance: float = Field(default=0.0, ge=0, le=1)
    organ_mask: str | None = None
    num_steps: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    betas: tuple[float, float]
    weight_decay: float = Field(ge=0)
    clip_gradient: float = Field(ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    accelerator: Literal["cpu", "gpu", "auto"]
    devices: int = Field(gt=0)
    num_nodes: int = Field(default=1, gt=0)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    num_threads: int = Field(ge=0)
    num_workers: int = Field(ge=0)
    prefetch_batches: int = Field(default=1, ge=0)
    cache_bytes: int = Field(ge=0)
    log_every_steps: int = Field(gt=0)
    validate_every_steps: int = Field(gt=0)
    checkpoint_every_steps: int = Field(gt=0)
    keep: Literal["last", "best"]
    resume: str

    @field_validator("objectives")
    @classmethod
    def _known(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        from components.objectives import OBJECTIVES

        for name in value:
            if name not in OBJECTIVES.names():
                raise ValueError(f"there is no objective called {name!r}")
        if not any(values.get("weight", 1.0) > 0 for values in value.values()):
            raise ValueError("no objective has a weight above 0")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.num_steps and self.warmup_steps >= self.num_steps:
            raise ValueError("warmup_steps must be below num_steps")
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            raise ValueError("strategy fsdp cannot train in 16-mixed; take bf16-mixed or 32-true")
        return self

    def of_the_result(self) -> dict[str, Any]:
        """The parameters that the result depends on, as plain data: what a run's hash is made of."""
        return self.model_dump(mode="json", exclude=set(NOT_OF_THE_RESULT))
