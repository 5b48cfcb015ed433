"""Image tokens and a question to an answer: what `vqa` trains, saves and answers with.

Source: VELVET-Med's downstream set-up. The vision encoder and the text layers stay as they are; a linear map of the
image tokens and the multimodal layers above the text are trained, and a head on the fused `[CLS]` answers. A text
encoder without multimodal layers gives its question's vector beside the image's. A short answer is written by a
small decoder over the fused states, in the place of VELVET-Med's language model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.downstream.decoder import Decoder
from components.downstream.decoding import decode
from components.downstream.report_writer import padded, sentences_of, target_ids
from components.downstream.settings import DecoderParams, DecodingParams
from components.encoders.features import TextBatch

if TYPE_CHECKING:
    from components.downstream.image_tokens import Tokens
    from components.downstream.questions import Question
    from components.encoders.dual import DualEncoder

TEXT_BATCH = 64
FROZEN, TRAINED = "text.", "text.multimodal_layers."


def has_multimodal(text: nn.Module) -> bool:
    """Whether a text encoder has layers that read the image; without any they would pass the question through."""
    return len(getattr(text, "multimodal_layers", ())) > 0


def texts_of(question: Question) -> list[list[str]]:
    """What is encoded for a question, as lists of sentences: itself, or itself with each of its options.

    Never a bare string: a tokenizer of sentences would take every letter for one.
    """
    if question.kind == "closed":
        return [[question.text, f"{option}."] for option in question.options]
    return [[question.text]]


class Answerer(nn.Module):
    """Answers questions from image tokens [T, C] of their studies; `blind` sees none of the image."""

    token_mean: Tensor
    token_scale: Tensor

    def __init__(
        self,
        encoder: DualEncoder,
        params: DecoderParams,
        mean: Tokens,
        scale: Tokens,
        *,
        blind: bool,
        seed: int = 0,
    ) -> None:
        """`mean` [T, C] and `scale` [C] are the training split's; `encoder` gives the text encoder, copied."""
        super().__init__()
        self.tokenizer, self.blind = encoder.tokenizer, blind
        width = encoder.text.hidden_size
        self.text = copy.deepcopy(encoder.text).eval()
        self.fused = has_multimodal(self.text)
        for name, weight in self.text.named_parameters():
            weight.requires_grad_(self.fused and name.startswith("multimodal_layers."))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.places = nn.Parameter(torch.randn(mean.shape) * 0.02)
            self.adapter = nn.Sequential(nn.Linear(mean.shape[1], width), nn.LayerNorm(width))
            vector = width if self.fused else 2 * width
            self.yes_no, self.closed = (_head(vector, width) for _ in range(2))
            self.decoder = Decoder(params, encoder.text.vocab_size, width)
        self.register_buffer("token_mean", torch.from_numpy(mean.copy()))
        self.register_buffer("token_scale", torch.from_numpy(scale.copy()))
        self._hidden: dict[tuple[str, ...], Tensor] = {}

    def train(self, mode: bool = True) -> Answerer:
        """Training mode for what is trained; the text layers stay in evaluation mode."""
        super().train(mode)
        self.text.eval()
        if self.fused:
            cast("nn.Module", self.text.multimodal_layers).train(mode)
        return self

    def read(self, texts: Sequence[Sequence[str]], tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Texts (lists of sentences) with the image tokens [B, T, C] of each.

        Returns states [B, N, H] with a mask bool [B, N], and a vector [B, D]: the fused `[CLS]`, or without
        multimodal layers the mean of the image beside the question's vector.
        """
        batch, hidden = self._question(texts)
        image = (tokens - self.token_mean) / self.token_scale
        image = self.adapter((torch.zeros_like(image) if self.blind else image) + self.places)
        asked = batch.attention_mask > 0
        if self.fused:
            states = self.text.multimodal(hidden, batch, image)
            return states, asked, states[:, 0]
        vector = (hidden * asked[..., None]).sum(1) / asked.sum(1, keepdim=True)
        allowed = torch.cat([torch.ones_like(image[..., 0], dtype=torch.bool), asked], dim=1)
        return torch.cat([image, hidden], dim=1), allowed, torch.cat([image.mean(1), vector], dim=-1)

    def _question(self, texts: Sequence[Sequence[str]]) -> tuple[TextBatch, Tensor]:
        """The tokenised texts, and what the frozen text layers make of them [B, L, H]."""
        device = self.places.device
        batch = TextBatch.from_arrays(self.tokenizer.encode(texts)).to(device)
        keys = [tuple(text) for text in texts]
        missing = [list(key) for key in dict.fromkeys(keys) if key not in self._hidden]
        for start in range(0, len(missing), TEXT_BATCH):
            part = missing[start : start + TEXT_BATCH]
            encoded = TextBatch.from_arrays(self.tokenizer.encode(part)).to(device)
            with torch.no_grad():
                made = self.text.hidden_states(encoded)
            for text, row, mask in zip(part, made, encoded.attention_mask, strict=True):
                self._hidden[tuple(text)] = row[mask > 0].clone()
        hidden = nn.utils.rnn.pad_sequence([self._hidden[key] for key in keys], batch_first=True)
        return batch, hidden

    def loss(self, questions: Sequence[Question], tokens: Tensor) -> Tensor:
        """The mean loss of questions of one kind, with the image tokens [B, T, C] of each."""
        kind = questions[0].kind
        device = tokens.device
        target = torch.tensor([question.target for question in questions], device=device)
        if kind == "yes_no":
            return F.binary_cross_entropy_with_logits(self.yes_no_logits(questions, tokens), target.float())
        if kind == "closed":
            return F.cross_entropy(self.option_scores(questions, tokens), target)
        answers = target_ids([[question.answer] for question in questions], self.tokenizer)
        ids, targets = padded(answers, self.tokenizer.pad_id, self.decoder.params.max_length)
        states, allowed, _ = self.read([texts_of(question)[0] for question in questions], tokens)
        logits = self.decoder(ids.to(device), states, allowed)
        return F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), ignore_index=-100)

    def yes_no_logits(self, questions: Sequence[Question], tokens: Tensor) -> Tensor:
        """The log-odds [B] of `yes`."""
        logits: Tensor = self.yes_no(self.read([texts_of(one)[0] for one in questions], tokens)[2])[:, 0]
        return logits

    def option_scores(self, questions: Sequence[Question], tokens: Tensor) -> Tensor:
        """A score [B, options] of every option; -inf where a question has fewer than the others."""
        counts = [len(question.options) for question in questions]
        rows = torch.arange(len(questions), device=tokens.device)
        rows = rows.repeat_interleave(torch.tensor(counts, device=tokens.device))
        texts = [text for question in questions for text in texts_of(question)]
        scores = self.closed(self.read(texts, tokens[rows])[2])[:, 0]
        return nn.utils.rnn.pad_sequence(
            list(scores.split(counts)), batch_first=True, padding_value=-torch.inf
        )

    @torch.no_grad()
    def write(self, questions: Sequence[Question], tokens: Tensor, params: DecodingParams) -> list[str]:
        """A short answer to each open question."""
        states, allowed, _ = self.read([texts_of(question)[0] for question in questions], tokens)
        limit = min(params.max_tokens, self.decoder.params.max_length)
        tokenizer = self.tokenizer
        ids = decode(
            self.decoder,
            self.decoder.begin(states, allowed),
            len(questions),
            tokenizer.cls_id,
            tokenizer.sep_id,
            params.model_copy(update={"max_tokens": limit}),
            {tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.mask_id},
            tokens.device,
        )
        return [" ".join(sentences_of(one, tokenizer)) for one in ids]

    def own_state(self) -> dict[str, Tensor]:
        """All weights but the frozen text layers', which are the encoder's."""
        state = self.state_dict()
        return {
            name: value
            for name, value in state.items()
            if not name.startswith(FROZEN) or name.startswith(TRAINED)
        }

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `own_state` gave; anything missing or unknown is a `RuntimeError`."""
        if set(state) != set(self.own_state()):
            raise RuntimeError("the names of the weights differ")
        self.load_state_dict({**self.state_dict(), **state}, strict=True)
        self._hidden.clear()


def _head(width: int, hidden: int) -> nn.Module:
    """Linear, GELU, LayerNorm, Linear to one score (VELVET-Med's classification head)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, 1))


class Gallery:
    """The image tokens of studies, by study key."""

    def __init__(self, tokens: Tokens, studies: Sequence[str], device: torch.device) -> None:
        """`tokens` [N, T, C] in the order of `studies`."""
        self._tokens, self._device = tokens, device
        self._row = {study: row for row, study in enumerate(studies)}

    def of(self, questions: Sequence[Question]) -> Tensor:
        """Image tokens [B, T, C] of the questions' studies, on the device."""
        rows = [self._row[question.study_key] for question in questions]
        return torch.from_numpy(np.array(self._tokens[rows])).to(self._device)


def in_batches(questions: Sequence[Question], size: int) -> list[Sequence[Question]]:
    """The questions in their order, `size` at a time."""
    return [questions[start : start + size] for start in range(0, len(questions), size)]


@torch.no_grad()
def logits_of(model: Answerer, questions: Sequence[Question], gallery: Gallery, size: int) -> Any:
    """The log-odds of `yes` float64 [n] of yes/no questions."""
    parts = [model.yes_no_logits(part, gallery.of(part)) for part in in_batches(questions, size)]
    return torch.cat(parts).double().cpu().numpy() if parts else np.zeros(0)


@torch.no_grad()
def choices_of(model: Answerer, questions: Sequence[Question], gallery: Gallery, size: int) -> list[int]:
    """The number of the option chosen for each closed question."""
    return [
        int(one)
        for part in in_batches(questions, size)
        for one in model.option_scores(part, gallery.of(part)).argmax(1)
    ]
