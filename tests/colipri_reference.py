"""Write what the package `colipri` computes with random weights: the reference that conversion is tested against.

    python tests/colipri_reference.py reference.safetensors [seed]
    python tests/colipri_reference.py names.json          # names and shapes at the released size, without weights

Run it with an interpreter that has colipri==0.1.3. That package needs timm and so torchvision, whose wheels do not
load beside a CPU build of torch and then break lightning and transformers too; so give it an environment of its own
(`pip install colipri==0.1.3`) and name its interpreter in VELVET_COLIPRI_PYTHON for the tests. Nothing is downloaded:
the image encoder is made with `image_only=True`, the text body is a small random BERT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

WIDTH, HEADS, DEPTH, PATCH, SIZE = 24, 2, 2, 2, 8
LARGE, UNEVEN, WINDOWED = 12, (6, 14, 10), (16, 8, 24)
PROJECTION, POOL_HEADS, TEXT_HEADS = 16, 4, 2
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(97 + n) * 2 for n in range(26)), "##s", "."]
REPORTS = [["aa bb ccs.", "dd."], ["ee"], ["ff gg hh ii jj.", "kk ll", "zz"]]
LENGTH = 14
LIBRARIES: list[Any] = []  # operators are declared for as long as their library is kept


def plain_ids() -> list[list[int]]:
    """`[CLS] pieces [SEP]` of the reports, padded with 0 to LENGTH."""
    rows = []
    for report in REPORTS:
        words = " ".join(report).replace("ccs", "cc ##s").replace(".", " .").split()
        row = [2, *(VOCAB.index(word) for word in words), 3]
        rows.append(row + [0] * (LENGTH - len(row)))
    return rows


def prepare() -> None:
    """Make timm importable beside a CPU build of torch."""
    import torch

    try:
        import torchvision  # noqa: F401
    except (
        RuntimeError
    ):  # a CUDA build beside a CPU torch: declare the two operators that its import asks for
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        LIBRARIES.append(library)


def names(target: Path) -> None:
    """Names and shapes of the whole model's tensors at the sizes of the release (CXR-BERT's are BERT-base's)."""
    prepare()
    from accelerate import init_empty_weights
    from colipri import get_model
    from colipri.model.multimodal import Model
    from colipri.model.text import TextEncoder
    from colipri.pooling import AttentionPool1D
    from transformers import BertConfig, BertModel

    with init_empty_weights():
        image = get_model(pretrained=False, image_only=True).image_encoder
        bert = BertModel(BertConfig(vocab_size=30_522), add_pooling_layer=False)
        model = Model(image, TextEncoder(bert, AttentionPool1D(768, 12)))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    target.write_text(json.dumps(shapes, sort_keys=True) + "\n")


def main(target: Path, seed: int) -> None:
    """Weights, inputs and outputs as one safetensors file."""
    prepare()
    import torch
    from colipri import get_model
    from colipri.model.multimodal import Model
    from colipri.model.text import TextEncoder
    from colipri.pooling import AttentionPool1D, MultiLearnedQueryAttentionPool1D
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel

    def image_model(size: int, sides: tuple[int, int, int] | None = None) -> Model:
        part = "model.image_encoder"
        return get_model(
            pretrained=False,
            image_only=True,
            **{
                "input_size": size,
                "image_embed_dim": WIDTH,
                "projection_dim": PROJECTION,
                f"{part}.backbone.eva_depth": DEPTH,
                f"{part}.backbone.eva_numheads": HEADS,
                f"{part}.backbone.patch_embed_size": [PATCH] * 3,
                f"{part}.backbone.input_shape": list(sides or [size] * 3),
                f"{part}.pooler.num_heads": POOL_HEADS,
            },
        )

    torch.manual_seed(seed)
    bert = BertModel(
        BertConfig(
            vocab_size=len(VOCAB),
            hidden_size=PROJECTION,
            num_hidden_layers=2,
            num_attention_heads=TEXT_HEADS,
            intermediate_size=32,
            max_position_embeddings=32,
        ),
        add_pooling_layer=False,
    )
    text = TextEncoder(bert, AttentionPool1D(PROJECTION, POOL_HEADS))
    model = Model(image_model(SIZE).image_encoder, text, temperature=0.6).eval()
    result: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        file = target.with_suffix(".weights.safetensors")
        model.save_weights(file)
        result |= {f"weights/{name}": tensor for name, tensor in load_file(file).items()}
        file.unlink()

        images, wide = torch.randn(2, 1, *[SIZE] * 3), torch.randn(1, 1, *WINDOWED)
        result |= {"images": images, "wide": wide}
        for name, volume, window in (("direct", images, None), ("windows", wide, SIZE)):
            result[f"{name}/tokens"] = model.encode_image(volume, window_size=window)
            result[f"{name}/dense"] = model.encode_image(volume, project=True, window_size=window)
            result[f"{name}/pooled"] = model.encode_image(volume, project=True, pool=True, window_size=window)
        for name, sides in (("large", (LARGE,) * 3), ("uneven", UNEVEN)):
            other = image_model(LARGE, sides)
            other.image_encoder.load_state_dict(model.image_encoder.state_dict())
            result[name] = torch.randn(1, 1, *sides)
            result[f"{name}/tokens"] = other.encode_image(result[name])
            result[f"{name}/pooled"] = other.encode_image(result[name], project=True, pool=True)

        ids = torch.tensor(plain_ids())
        result["text"] = model.encode_text(ids, (ids > 0).long())
        unit = model.encode_image(images, project=True, pool=True, normalize=True)
        result["probabilities"] = model.classify(unit, result["text"])
        torch.manual_seed(seed + 1)
        learned = MultiLearnedQueryAttentionPool1D(PROJECTION, POOL_HEADS).eval()
        result |= {f"learned/{name}": tensor for name, tensor in learned.state_dict().items()}
        result["learned_queries"] = learned(result["direct/dense"].flatten(2).transpose(1, 2))
    save_file({name: tensor.contiguous().clone() for name, tensor in result.items()}, target)


if __name__ == "__main__":
    if sys.argv[1].endswith(".json"):
        names(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
