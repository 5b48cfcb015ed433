"""The dual encoder: a vision and a text encoder that meet in one space of unit vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.base.config import Config, parse
from components.base.errors import ConfigError
from components.encoders.dense import features_of, prompt_maps, similarity_maps
from components.encoders.features import TextBatch, TextFeatures, VolumeFeatures
from components.encoders.interfaces import TextEncoder, VisionEncoder
from components.encoders.text import TEXT
from components.encoders.tokenization import ReportTokenizer
from components.encoders.vision import VISION
from components.volumes.contract import Contract

INITIAL_TEMPERATURE = 0.07
MIN_TEMPERATURE = 0.01


class DualEncoder(nn.Module):
    """Both encoders, their projections to P dimensions and the learnable temperature.

    An encoder whose vectors are made for the shared space (`joint`) has no projection here.
    """

    def __init__(
        self,
        vision: VisionEncoder,
        text: TextEncoder,
        embed_dim: int,
        tokenizer: ReportTokenizer,
        contract: Contract,
        config: Mapping[str, Any],
    ) -> None:
        """`config` is what `build` can make this encoder from again (plain data)."""
        super().__init__()
        self.vision, self.text = vision, text
        self.embed_dim = embed_dim
        self.volume_projection = projection(vision.joint, vision.embed_dim, embed_dim, "vision")
        self.report_projection = projection(text.joint, text.hidden_size, embed_dim, "text")
        self.temperature = nn.Parameter(torch.tensor(INITIAL_TEMPERATURE))
        self.tokenizer, self.contract, self.config = tokenizer, contract, dict(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.temperature.device

    @property
    def tau(self) -> Tensor:
        """The temperature to divide by: never below 0.01, its gradient never cut off by that bound."""
        bounded = self.temperature.clamp(min=MIN_TEMPERATURE)
        return self.temperature + (bounded - self.temperature).detach()

    def project_volume(self, features: VolumeFeatures) -> Tensor:
        """Features of volumes -> unit vectors [B, P]."""
        return F.normalize(self.volume_projection(features.pooled), dim=-1)

    def project_report(self, features: TextFeatures) -> Tensor:
        """Features of reports -> unit vectors [B, P]."""
        return F.normalize(self.report_projection(features.report), dim=-1)

    def encode_volume(self, volume: Tensor, window: Sequence[int] | None = None) -> Tensor:
        """volume [B, 1, *size] as `model_input` gives it -> unit vectors [B, P].

        With `window` (voxels) a larger volume is read window by window and pooled as one.
        """
        return self.project_volume(features_of(self.vision, volume, window))

    def dense(self, volume: Tensor, window: Sequence[int] | None = None) -> Tensor:
        """volume [B, 1, *size] -> a unit vector of the shared space at every position [B, P, *S].

        The positions are the encoder's (for Primus its patches); `zero_shot_maps` gives maps of voxels.
        """
        grid = self.vision.dense(features_of(self.vision, volume, window).scales)
        return F.normalize(self.volume_projection(grid.movedim(1, -1)), dim=-1).movedim(-1, 1)

    @torch.no_grad()
    def zero_shot_maps(
        self, volume: Tensor, prompts: Tensor | Sequence[str], window: Sequence[int] | None = None
    ) -> Tensor:
        """volume [B, 1, *size] -> the probability of each of K prompts at every voxel [B, K, *size].

        The prompts (texts, or unit vectors [K, P]) compete with each other at every voxel.
        """
        vectors = prompts if isinstance(prompts, Tensor) else self.embed_reports(prompts)
        logits = similarity_maps(self.dense(volume, window), vectors, self.tau)
        return prompt_maps(logits, volume.shape[2:])

    def encode_text(self, batch: TextBatch) -> Tensor:
        """Tokenised reports -> unit vectors [B, P]; no sentence or word vectors are made."""
        return F.normalize(self.report_projection(self.text.report(batch)), dim=-1)

    @torch.no_grad()
    def embed_reports(self, texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """Plain texts -> unit vectors [N, P] on the encoder's device."""
        parts = []
        for start in range(0, len(texts), batch_size):
            arrays = self.tokenizer.encode_text(texts[start : start + batch_size])
            parts.append(self.encode_text(TextBatch.from_arrays(arrays).to(self.device)))
        return torch.cat(parts) if parts else torch.empty(0, self.embed_dim, device=self.device)

    def save_pretrained(self, folder: Path, card: str) -> None:
        """Write weights, config, contract, tokenizer and the model card to `folder`, atomically."""
        from components.encoders.saving import save

        save(self, folder, card)


def projection(joint: bool, width: int, embed_dim: int, side: str) -> nn.Module:
    """A linear layer to the shared space, or nothing where the encoder's own vectors lie in it."""
    if not joint:
        return nn.Linear(width, embed_dim)
    if width != embed_dim:
        raise ConfigError(
            f"the {side} encoder's vectors have length {width}, the shared space {embed_dim}",
            rule="encoder.embed_dim",
            fix=f"set embed_dim to {width}, or give the {side} encoder a projection",
        )
    return nn.Identity()


def build(
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    embed_dim: int,
    tokenizer: ReportTokenizer,
    contract: Contract | Mapping[str, Any],
    *,
    seed: int = 0,
) -> DualEncoder:
    """See `components.encoders.build`."""
    encoder = skeleton(vision, text, embed_dim, tokenizer, contract, seed)
    start = text.get("initial_weights")
    if start:
        encoder.text.load_initial_weights(Path(start), tokenizer)
    return encoder


def skeleton(
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    embed_dim: int,
    tokenizer: ReportTokenizer,
    contract: Contract | Mapping[str, Any],
    seed: int = 0,
) -> DualEncoder:
    """A dual encoder with fresh weights, for training or for saved weights to be put in."""
    from components.encoders.saving import bind_contract

    vision_kind, vision_params = _part(VISION.get, vision, "vision")
    text_kind, text_params = _part(TEXT.get, text, "text")
    bound = bind_contract(contract, tokenizer)
    if embed_dim < 1:
        raise ConfigError("embed_dim is below 1", rule="encoder.embed_dim", fix="set it to 1 or more")
    plain = {"name": text["name"], **text_params.model_dump(mode="json")}
    if "initial_weights" in plain:
        plain["initial_weights"] = None  # a path of this machine; saved weights replace it
    config = {
        "vision": {"name": vision["name"], **vision_params.model_dump(mode="json")},
        "text": plain,
        "embed_dim": embed_dim,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = text_kind(text_params, vocab_size=tokenizer.vocab_size)
        text_encoder.bind(tokenizer)
        _check_fit(text_encoder, text_params, tokenizer)
        encoder = DualEncoder(vision_kind(vision_params), text_encoder, embed_dim, tokenizer, bound, config)
    return encoder


def _part(find: Any, values: Mapping[str, Any], where: str) -> tuple[Any, Config]:
    """The registered class and its checked parameters."""
    name = values.get("name")
    if not isinstance(name, str):
        raise ConfigError(
            f"the {where} encoder has no name", rule=f"{where}.name", fix=f"set {where}.name in params.yaml"
        )
    kind = find(name)
    return kind, parse(kind.Params, {key: item for key, item in values.items() if key != "name"}, where)


def _check_fit(text: TextEncoder, params: Config, tokenizer: ReportTokenizer) -> None:
    """The tokenizer's limits must lie within the text encoder's tables."""
    pairs = [
        ("max_length", tokenizer.max_length, "max_positions", text.max_positions),
        ("max_sentences", tokenizer.max_sentences, "max_sentences", getattr(params, "max_sentences", None)),
        ("pad_id", tokenizer.pad_id, "pad_id", 0),
    ]
    for name, value, limit_name, limit in pairs:
        if limit is not None and value > limit:
            raise ConfigError(
                f"the tokenizer's {name} is {value}, the text encoder's {limit_name} {limit}",
                rule=f"text.{limit_name}",
                fix=f"lower the tokenizer's {name} or raise text.{limit_name}",
            )
