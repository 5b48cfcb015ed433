"""Parameters that the generative tasks and protocols share; no torch, so that blocks are checked quickly."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.base.config import Config


class DecoderParams(Config):
    """Sizes of the decoder; `max_length` positions at most, the first token among them."""

    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    heads: int = Field(ge=1)
    ffn: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    max_length: int = Field(ge=2)

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> DecoderParams:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} does not divide by {self.heads} heads")
        return self


class DecodingParams(Config):
    """How text is written: `beams` 1 is greedy; `no_repeat_ngram` 0 bans nothing."""

    beams: int = Field(ge=1)
    no_repeat_ngram: int = Field(ge=0)
    length_penalty: float = Field(ge=0)
    max_tokens: int = Field(ge=1)


class FittingParams(Config):
    """How a task's own weights are trained; betas (0.9, 0.99) are VELVET-Med's downstream ones."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_gradient: float = Field(gt=0)
    validate_every_steps: int = Field(ge=1)
    device: Literal["cpu", "cuda"]
    seed: int
