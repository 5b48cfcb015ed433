"""VELVET-Med's step as one reads its description: every objective by itself, nothing shared, nothing fused.

Each objective makes its own augmented views or masked reports and its own passes through the encoders; the local
losses go through volumes and reports in two Python loops; attention is a softmax between two products; words and
sentences are pooled report by report. Weights are those of the encoders and objectives that are measured against
it (`PlainVelvet(module)`), random numbers come from the same streams, so the losses must be the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from components.encoders.features import TextFeatures, VolumeFeatures
from components.objectives._masking import mask_tokens
from components.objectives._views import make_views
from components.pretraining.features import Features
from components.pretraining.module import derived_seed


class PlainVelvet(nn.Module):
    """The nine losses of section 3.1 for the encoder and the heads of a `PretrainModule` (swin and tribert)."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.model, self.heads, self.seed = module.encoder, module.objectives, module.seed
        size = self.model.vision.params
        self.swin = SwinTransformer(
            in_chans=1,
            embed_dim=size.embed_dim,
            window_size=(size.window,) * 3,
            patch_size=(size.patch,) * 3,
            depths=size.depths,
            num_heads=size.heads,
            mlp_ratio=size.mlp_ratio,
            qkv_bias=True,
            patch_norm=False,
            spatial_dims=3,
            downsample="merging",
            use_checkpoint=size.gradient_checkpointing,
        )
        self.swin.load_state_dict(self.model.vision.backbone.state_dict())
        self.weights = {name: float(head.params.weight) for name, head in self.heads.items()}

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser gets: the plain Swin in place of the encoder's, the rest as it is."""
        own = {id(value) for value in self.model.vision.backbone.parameters()}
        return [value for value in self.parameters() if id(value) not in own]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Unweighted losses by objective."""
        return dict(self.one_by_one(batch))

    def one_by_one(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """The same, computed as they are asked for: who takes each backward at once holds one graph at a time."""
        seed = derived_seed(self.seed, "train", batch["step"])
        batch = {**batch, "generator": torch.Generator().manual_seed(seed)}
        for name in self.heads:
            yield name, getattr(self, name)(batch)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return sum(value * self.weights[name] for name, value in losses.items())  # type: ignore[return-value]

    def scales(self, volume: Tensor) -> list[Tensor]:
        """A pass through MONAI's Swin, its own masks for shifted windows included."""
        return self.swin(volume, normalize=True)

    def paired_scales(self, batch: dict[str, Any]) -> list[Tensor]:
        return self.scales(batch["volume"][batch["paired"]])

    def hidden(self, text: Any) -> Tensor:
        """The text layers with eager attention."""
        tower = self.model.text
        x = tower.embeddings(text.input_ids, text.token_type_ids)
        added = sentence_bias(text)
        for layer in tower.text_layers:
            x = eager_layer(layer, x, added, None)
        return x

    def fused(self, hidden: Tensor, text: Any, image_tokens: Tensor) -> Tensor:
        """The multimodal layers with eager attention."""
        added = sentence_bias(text)
        for layer in self.model.text.multimodal_layers:
            hidden = eager_layer(layer, hidden, added, image_tokens)
        return hidden

    def report_contrast(self, batch: dict[str, Any]) -> Tensor:
        volumes = self.model.volume_projection(self.paired_scales(batch)[-1].mean((2, 3, 4)))
        reports = self.model.report_projection(self.hidden(batch["text"])[:, 0])
        logits = F.normalize(volumes, dim=-1) @ F.normalize(reports, dim=-1).T / self.model.tau
        target, share = torch.arange(len(logits)), self.heads["report_contrast"].params.label_smoothing
        first = F.cross_entropy(logits, target, label_smoothing=share)
        return (first + F.cross_entropy(logits.T, target, label_smoothing=share)) / 2

    def sentence_region(self, batch: dict[str, Any]) -> Tensor:
        return self.local(batch, self.heads["sentence_region"], plain_sentences)

    def word_patch(self, batch: dict[str, Any]) -> Tensor:
        return self.local(batch, self.heads["word_patch"], plain_words)

    def local(self, batch: dict[str, Any], head: Any, pool: Any) -> Tensor:
        """The local loss in two loops: every volume against every report."""
        params = head.params
        scale = self.paired_scales(batch)[params.scale]
        hidden = self.hidden(batch["text"])
        reports = [pool(hidden[row], batch["text"], row) for row in range(len(hidden))]
        rows = []
        for volume in scale:
            regions = F.normalize(head.region_projection(volume.flatten(1).T), dim=-1)
            row = []
            for report in reports:
                tokens = F.normalize(head.token_projection(report), dim=-1)
                attention = (regions @ tokens.T / params.attention_temperature).softmax(-1)
                weights = (params.region_sharpness * attention).softmax(0)
                match = F.cosine_similarity(weights.T @ regions, tokens, dim=-1)
                powers = (params.token_sharpness * match).exp()
                found = powers.mean() if params.aggregation == "mean" else powers.sum()
                row.append(params.logit_scale * found.log())
            rows.append(torch.stack(row))
        logits, target = torch.stack(rows), torch.arange(len(rows))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    def image_text_matching(self, batch: dict[str, Any]) -> Tensor:
        head = self.heads["image_text_matching"]
        scales, hidden = self.paired_scales(batch), self.hidden(batch["text"])
        shared = Features(self.model, batch)
        pooled = VolumeFeatures(tuple(scales), scales[-1].mean((2, 3, 4)))
        shared.memo("volume.paired", lambda: pooled)
        shared.memo("volume.global", lambda: pooled)
        empty = hidden[:, :0]
        shared.memo("text", lambda: TextFeatures(hidden, hidden[:, 0], empty, empty, empty, empty))
        reports, volumes, labels = head.examples(batch, shared, batch["text"].input_ids, [len(hidden)])
        tokens = head.adapter.norm(head.adapter.linear(scales[-1].flatten(2).transpose(1, 2)))
        fused = self.fused(hidden[reports], batch["text"].subset(reports), tokens[volumes])
        return F.cross_entropy(head.head(fused[:, 0]), labels)

    def masked_ids(self, batch: dict[str, Any], head: Any) -> tuple[Any, Tensor]:
        keys = [batch["study_key"][row] for row in batch["paired"].tolist()]
        text, model = batch["text"], self.model
        ids, chosen = mask_tokens(
            text, keys, batch, model.tokenizer, model.text.vocab_size, head.params.probability
        )
        return text.with_ids(ids), chosen

    def masked_language(self, batch: dict[str, Any]) -> Tensor:
        head = self.heads["masked_language"]
        text, chosen = self.masked_ids(batch, head)
        logits = head.head(self.hidden(text))
        return F.cross_entropy(logits[chosen], batch["text"].input_ids[chosen])

    def multimodal_masked_language(self, batch: dict[str, Any]) -> Tensor:
        head = self.heads["multimodal_masked_language"]
        text, chosen = self.masked_ids(batch, head)
        deepest = self.paired_scales(batch)[-1].flatten(2).transpose(1, 2)
        tokens = head.adapter.norm(head.adapter.linear(deepest))
        logits = head.head(self.fused(self.hidden(text), text, tokens))
        return F.cross_entropy(logits[chosen], batch["text"].input_ids[chosen])

    def both_views(self, batch: dict[str, Any], head: Any) -> tuple[Any, Tensor, Tensor]:
        views = make_views(batch, head.params.views)
        first, second = views.inputs.chunk(2)
        return views, self.scales(first)[-1], self.scales(second)[-1]

    def vision_contrast(self, batch: dict[str, Any]) -> Tensor:
        head = self.heads["vision_contrast"]
        _, first, second = self.both_views(batch, head)
        rows = torch.cat([head.projection(e.mean((2, 3, 4))) for e in (first, second)])
        rows, terms, count = F.normalize(rows, dim=-1), [], len(first)
        for i in range(2 * count):
            scores = rows @ rows[i] / head.params.temperature
            others = torch.cat([scores[:i], scores[i + 1 :]])
            terms.append(others.logsumexp(0) - scores[(i + count) % (2 * count)])
        return torch.stack(terms).mean()

    def rotation(self, batch: dict[str, Any]) -> Tensor:
        head = self.heads["rotation"]
        views, first, second = self.both_views(batch, head)
        logits = torch.cat([head.head(e.mean((2, 3, 4))) for e in (first, second)])
        return F.cross_entropy(logits, views.turns)

    def inpainting(self, batch: dict[str, Any]) -> Tensor:
        head = self.heads["inpainting"]
        views, first, second = self.both_views(batch, head)
        rebuilt = torch.cat([head.head(e) for e in (first, second)])
        if rebuilt.shape != views.targets.shape:
            rebuilt = F.interpolate(
                rebuilt, size=views.targets.shape[2:], mode="trilinear", align_corners=False
            )
        return F.l1_loss(rebuilt, views.targets)


def sentence_bias(text: Any) -> Tensor:
    """`[B, 1, L, L]`: 0 where a row may look, the smallest float elsewhere; written row by row."""
    count, length = text.input_ids.shape
    allowed = torch.ones(count, length, length)
    for row in range(count):
        types = text.token_type_ids[row]
        for number in range(1, int(types.max()) + 1):
            places = (types == number).nonzero().flatten()
            marker = int(places[1] if number == 1 else places[0])
            allowed[row, marker] = (types == number).float()
            allowed[row, marker, 0] = 1
    allowed *= text.attention_mask[:, None, :]
    return ((1 - allowed) * torch.finfo(torch.float32).min)[:, None]


def eager_attention(part: Any, x: Tensor, source: Tensor, added: Tensor | None) -> Tensor:
    """Softmax(q k / sqrt(d) + added) v, with every matrix in memory."""

    def split(value: Tensor) -> Tensor:
        return value.view(*value.shape[:2], part.heads, -1).transpose(1, 2)

    query, (key, value) = split(part.query(x)), map(split, part.key_value(source).chunk(2, dim=-1))
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    weights = (scores if added is None else scores + added).softmax(-1)
    return part.output((weights @ value).transpose(1, 2).flatten(2))


def eager_layer(layer: Any, x: Tensor, added: Tensor, image_tokens: Tensor | None) -> Tensor:
    """A BERT layer without dropout (the benchmark's encoders have none)."""
    x = layer.attention_end.norm(x + eager_attention(layer.attention, x, x, added))
    if image_tokens is not None:
        x = layer.cross_end.norm(x + eager_attention(layer.cross, x, image_tokens, None))
    return layer.ffn_end.norm(x + layer.ffn_out(F.gelu(layer.ffn_in(x))))


def plain_words(hidden: Tensor, text: Any, row: int) -> Tensor:
    """`[W, H]`: the pieces of every word summed, word by word."""
    numbers = text.word_index[row]
    return torch.stack([hidden[numbers == word].sum(0) for word in range(int(numbers.max()) + 1)])


def plain_sentences(hidden: Tensor, text: Any, row: int) -> Tensor:
    """`[S, H]`: the mean of a sentence's marker and its words, sentence by sentence."""
    types, words = text.token_type_ids[row] * text.attention_mask[row], text.word_index[row]
    found = []
    for number in range(1, int(types.max()) + 1):
        places = (types == number).nonzero().flatten()
        places = places[places > 0]
        count = 1 + len(words[places[words[places] >= 0]].unique())
        found.append(hidden[places].sum(0) / count)
    return torch.stack(found)
