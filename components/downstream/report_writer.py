"""Image tokens to a report: what `report_generation` trains, saves and writes with.

The frozen encoder's tokens are standardised position by position, get a code of their place, and are the memory of
a causal decoder over the encoder's own vocabulary. A report is written as it is tokenised, with a marker before
every sentence, and ends with `[SEP]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.base.errors import IntegrityError
from components.downstream.decoder import Decoder
from components.downstream.decoding import decode
from components.downstream.settings import DecoderParams, DecodingParams

if TYPE_CHECKING:
    from components.downstream.image_tokens import Tokens
    from components.encoders.tokenization import ReportTokenizer

TENSORS, SETTINGS = "writer.safetensors", "writer.json"
WRITE_BATCH = 8  # studies decoded at a time
_TIGHT = ((r" ([.,;:%?!)\]])", r"\1"), (r"([(\[]) ", r"\1"), (r"(\w) ([-/]) (?=\w)", r"\1\2"))
_DECIMAL = re.compile(r"(?<=\d)([.,:]) (?=\d)")


class ReportWriter(nn.Module):
    """Standardised image tokens [B, T, C] and ids [B, L] -> logits [B, L, V]."""

    token_mean: Tensor
    token_scale: Tensor

    def __init__(
        self, params: DecoderParams, vocab_size: int, mean: Tokens, scale: Tokens, seed: int = 0
    ) -> None:
        """`mean` [T, C] and `scale` [C] are the training split's (`token_statistics`)."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.places = nn.Parameter(torch.randn(mean.shape) * 0.02)
            self.decoder = Decoder(params, vocab_size, mean.shape[1])
        self.register_buffer("token_mean", torch.from_numpy(mean.copy()))
        self.register_buffer("token_scale", torch.from_numpy(scale.copy()))

    def memory(self, tokens: Tensor) -> Tensor:
        """Raw image tokens [B, T, C] -> the decoder's memory [B, T, C]."""
        return (tokens - self.token_mean) / self.token_scale + self.places

    def forward(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        logits: Tensor = self.decoder(ids, self.memory(tokens))
        return logits

    def loss(self, tokens: Tensor, ids: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """The mean cross-entropy over the targets [B, L] that are not -100."""
        return F.cross_entropy(
            self(tokens, ids).flatten(0, 1), targets.flatten(), ignore_index=-100, label_smoothing=smoothing
        )

    @torch.no_grad()
    def write(self, tokens: Tokens, tokenizer: ReportTokenizer, params: DecodingParams) -> list[list[str]]:
        """The reports, as sentences, of raw image tokens [N, T, C]."""
        device = self.places.device
        banned = {tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.mask_id}
        limit = min(params.max_tokens, self.decoder.params.max_length)
        params = params.model_copy(update={"max_tokens": limit})
        written: list[list[str]] = []
        for start in range(0, len(tokens), WRITE_BATCH):
            part = torch.from_numpy(np.array(tokens[start : start + WRITE_BATCH])).to(device)
            ids = decode(
                self.decoder,
                self.decoder.begin(self.memory(part)),
                len(part),
                tokenizer.cls_id,
                tokenizer.sep_id,
                params,
                banned,
                device,
            )
            written += [sentences_of(one, tokenizer) for one in ids]
        return written

    def save(self, folder: Path, **settings: Any) -> None:
        """Write `writer.safetensors` and `writer.json`."""
        from safetensors.torch import save

        from components.base.files import write_bytes, write_json

        state = {name: value.detach().cpu().contiguous() for name, value in sorted(self.state_dict().items())}
        write_bytes(folder / TENSORS, save(state))
        write_json(folder / SETTINGS, {"decoder": self.decoder.params.model_dump(), **settings})


def load_writer(folder: Path, vocab_size: int, model_sha256: str) -> tuple[ReportWriter, dict[str, Any]]:
    """The writer that `save` wrote, in evaluation mode, and its settings; another encoder's is refused."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from components.base.files import missing_input, read_json

    settings = read_json(folder / SETTINGS)
    if not (folder / TENSORS).exists():
        raise missing_input(folder / TENSORS)
    again = "run finetune --task report_generation again"
    try:
        if settings["model_sha256"] != model_sha256:
            raise IntegrityError(
                "the report decoder was made with another encoder", rule="report_generation.model", fix=again
            )
        tensors = load_file(folder / TENSORS)
        params = DecoderParams.model_validate(settings["decoder"])
        model = ReportWriter(
            params, vocab_size, tensors["token_mean"].numpy(), tensors["token_scale"].numpy()
        )
        model.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        raise IntegrityError(
            "the report decoder's files do not fit together", rule="report_generation.format", fix=again
        ) from None
    return model.eval(), dict(settings)


def target_ids(reports: Sequence[Sequence[str]], tokenizer: ReportTokenizer) -> list[list[int]]:
    """The ids of reports (lists of sentences), from `[CLS]` to `[SEP]`; [] for one without any word."""
    if not reports:
        return []
    arrays = tokenizer.encode(reports)
    found = []
    for ids, mask in zip(arrays["input_ids"], arrays["attention_mask"], strict=True):
        kept = [int(one) for one in ids[mask > 0]]
        words = [one for one in kept if one not in tokenizer.special_ids]
        found.append([*kept, tokenizer.sep_id] if words else [])
    return found


def padded(sequences: Sequence[Sequence[int]], pad_id: int, max_length: int) -> tuple[Tensor, Tensor]:
    """Inputs and next ids, each int64 [B, L], L <= `max_length`; -100 where nothing is to be predicted."""
    rows = [list(ids[: max_length + 1]) for ids in sequences]
    length = max(len(ids) for ids in rows) - 1
    inputs = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    targets = torch.full((len(rows), length), -100, dtype=torch.int64)
    for number, ids in enumerate(rows):
        inputs[number, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[number, : len(ids) - 1] = torch.tensor(ids[1:])
    return inputs, targets


def sentences_of(ids: Sequence[int], tokenizer: ReportTokenizer) -> list[str]:
    """Written ids -> sentences; a marker begins the next one."""
    markers = {int(one) for one in tokenizer.marker_ids}
    parts: list[list[int]] = [[]]
    for one in ids:
        if one in markers:
            parts.append([])
        else:
            parts[-1].append(one)
    return [readable(tokenizer.decode(part)) for part in parts if part]


def readable(text: str) -> str:
    """Word pieces joined by spaces as a person would set them: `no 3 . 5 mm nodule .` -> `No 3.5 mm nodule.`"""
    for pattern, to in _TIGHT:
        text = re.sub(pattern, to, text)
    text = _DECIMAL.sub(r"\1", text)
    return text[:1].upper() + text[1:]
