"""Turn the released weights of COLIPRI into a folder that `from_pretrained` opens.

python -m components.encoders.convert --from model.safetensors --tokenizer CXR-BERT-FOLDER --to encoder

`--from` is the file of microsoft/colipri (names as in the package `colipri` 0.1.3), `--tokenizer` a local folder with
the vocabulary of BiomedVLP-CXR-BERT-specialized. Nothing is downloaded. Every tensor must find its place and every
place its tensor, else nothing is written. The weights are for research, not for clinical use.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError, IntegrityError, VelvetError
from components.base.files import missing_input

if TYPE_CHECKING:
    from torch import Tensor

    from components.encoders.dual import DualEncoder
    from components.encoders.tokenization import ReportTokenizer

State = dict[str, "Tensor"]
CONTRACT = {
    "orientation": "RAS",
    "spacing_mm": (2.0, 2.0, 2.0),
    "antialias": False,
    "convention": "torchio",
    "size": (192, 192, 192),
    "hu_window": (-1000.0, 1000.0),
    "output_range": (-1.0, 1.0),
    "view": "crop_or_pad",
}
"""COLIPRI's preprocessing from version 0.1.2 on; 0.1.0 and 0.1.1 had the orientation SAR."""
UNUSED = frozenset({"image_encoder.backbone.mask_token", "text_encoder.backbone.embeddings.position_ids"})
"""A constant of zeros that no forward pass reads, and a table of indices."""
PREFIXES = (
    ("image_encoder.backbone.", "vision.backbone."),
    ("image_encoder.projector.", "vision.projector."),
    ("image_encoder.pooler.", "vision.pooling."),
    ("text_encoder.pooler.", "text.pooling."),
    ("text_encoder.backbone.embeddings.word_embeddings.", "text.embeddings.words."),
    ("text_encoder.backbone.embeddings.position_embeddings.", "text.embeddings.positions."),
    ("text_encoder.backbone.embeddings.token_type_embeddings.", "text.embeddings.types."),
    ("text_encoder.backbone.embeddings.LayerNorm.", "text.embeddings.norm."),
    ("text_encoder.backbone.encoder.layer.", "text.layers."),
)
LAYER_PARTS = (
    ("attention.self.query.", "attention.query."),
    ("attention.output.dense.", "attention.output."),
    ("attention.output.LayerNorm.", "attention_end.norm."),
    ("intermediate.dense.", "ffn_in."),
    ("output.dense.", "ffn_out."),
    ("output.LayerNorm.", "ffn_end.norm."),
)
KEY, VALUE = "attention.self.key.", "attention.self.value."
CARD = """# COLIPRI, converted

Image encoder Primus-M, text encoder CXR-BERT, both with attention pools; weights of microsoft/colipri (MIT).

For research only: not for clinical use, not a medical device. The contract is that of COLIPRI's processor: no
anti-aliasing, TorchIO's grids.

## Training population

The weights come from COLIPRI (microsoft/colipri), trained on chest CT and reports of people from Turkey and the USA
only; performance elsewhere is not known.
"""


def renamed(state: Mapping[str, Tensor]) -> State:
    """COLIPRI's tensors under the names of a `DualEncoder`; key and value of a text layer become one matrix.

    Raises `IntegrityError` for a name that has no place.
    """
    import torch

    result: State = {}
    for name, stored in state.items():
        tensor = stored.float() if stored.is_floating_point() else stored
        if name in UNUSED or (VALUE in name and name.replace(VALUE, KEY) in state):
            continue
        if name == "softmax_temperature":
            result["temperature"] = tensor.reshape(()).float()
        elif KEY in name:
            both = (
                [tensor, state[name.replace(KEY, VALUE)]] if name.replace(KEY, VALUE) in state else [tensor]
            )
            result[_place(name.replace(KEY, "attention.key_value."))] = torch.cat(both)
        else:
            result[_place(name)] = tensor
    return result


def _place(name: str) -> str:
    for old, new in PREFIXES:
        if name.startswith(old):
            rest = name.removeprefix(old)
            if new == "text.layers.":
                number, _, part = rest.partition(".")
                for theirs, mine in LAYER_PARTS:
                    if part.startswith(theirs):
                        part = mine + part.removeprefix(theirs)
                        break
                rest = f"{number}.{part}"
            return new + rest
    raise IntegrityError(
        f"the tensor {name[:80]!r} has no place in an encoder",
        rule="convert.names",
        fix="give the unchanged model.safetensors of microsoft/colipri",
    )


def sizes_of(
    state: Mapping[str, Tensor], image_heads: int, text_heads: int, pool_heads: int
) -> dict[str, Any]:
    """The blocks `vision`, `text` and `embed_dim` of an encoder that these tensors (their names) fit.

    Numbers of heads cannot be read from the tensors. Raises `InputError` where a part is missing.
    """
    try:
        patches = state["image_encoder.backbone.down_projection.proj.weight"]
        gate = state["image_encoder.backbone.eva.blocks.0.mlp.fc1_g.weight"]
        projector = state["image_encoder.projector.weight"]
        words = state["text_encoder.backbone.embeddings.word_embeddings.weight"]
        positions = state["text_encoder.backbone.embeddings.position_embeddings.weight"]
        types = state["text_encoder.backbone.embeddings.token_type_embeddings.weight"]
        feed = state["text_encoder.backbone.encoder.layer.0.intermediate.dense.weight"]
    except KeyError as error:
        raise InputError(
            f"the weights hold no {str(error.args[0])[:80]!r}",
            rule="convert.parts",
            fix="give weights of the whole model, image and text encoder",
        ) from None
    pools = {
        side: "learned_queries" if f"{side}_encoder.pooler.query" in state else "mean_query"
        for side in ("image", "text")
    }
    width = patches.shape[0]
    vision = {
        "name": "primus",
        "patch": patches.shape[2],
        "width": width,
        "depth": _count(state, r"image_encoder\.backbone\.eva\.blocks\.(\d+)\."),
        "heads": image_heads,
        "mlp_ratio": gate.shape[0] / width,
        "projection_dim": projector.shape[0],
        "pooling": pools["image"],
        "pool_heads": pool_heads,
    }
    text = {
        "name": "bert",
        "hidden": words.shape[1],
        "layers": _count(state, r"text_encoder\.backbone\.encoder\.layer\.(\d+)\."),
        "heads": text_heads,
        "ffn": feed.shape[0],
        "max_positions": positions.shape[0],
        "types": types.shape[0],
        "vocab_rows": words.shape[0],
        "pooling": pools["text"],
        "pool_heads": pool_heads,
    }
    return {"vision": vision, "text": text, "embed_dim": projector.shape[0]}


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for name in state if (found := re.match(pattern, name)))


def convert(
    state: Mapping[str, Tensor],
    tokenizer: ReportTokenizer,
    contract: Mapping[str, Any] | None = None,
    *,
    image_heads: int = 12,
    text_heads: int = 12,
    pool_heads: int = 12,
) -> DualEncoder:
    """COLIPRI's tensors as a `DualEncoder` in eval mode; `contract` replaces values of COLIPRI's own.

    Raises `IntegrityError` where names or shapes are not those of the model, `ConfigError` where the tokenizer is
    not the one whose vocabulary the text encoder has.
    """
    from components.encoders.dual import skeleton
    from components.encoders.saving import put_weights

    sizes = sizes_of(state, image_heads, text_heads, pool_heads)
    encoder = skeleton(**sizes, tokenizer=tokenizer, contract={**CONTRACT, **(contract or {})})
    put_weights(encoder, renamed(state), "the weights of COLIPRI")
    return encoder.eval()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="convert", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="FILE")
    parser.add_argument("--to", dest="target", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FOLDER", help="of CXR-BERT")
    for side in ("image", "text", "pool"):
        parser.add_argument(f"--{side}-heads", type=int, default=12, help="attention heads (released: 12)")
    parser.add_argument("--positions", type=int, default=512, help="the longest report, in tokens")
    parser.add_argument("--size", type=int, nargs=3, default=CONTRACT["size"], help="voxels of the input")
    args = parser.parse_args(argv)
    try:
        _run(args)
    except VelvetError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


def _run(args: argparse.Namespace) -> None:
    from components.encoders.saving import read_weights
    from components.encoders.tokenization import ReportTokenizer

    if not args.source.is_file():
        raise missing_input(args.source)
    tokenizer = ReportTokenizer.from_folder(args.tokenizer, max_length=args.positions)
    encoder = convert(
        read_weights(args.source),
        tokenizer,
        {"size": tuple(args.size)},
        image_heads=args.image_heads,
        text_heads=args.text_heads,
        pool_heads=args.pool_heads,
    )
    encoder.save_pretrained(args.target, CARD)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    print(f"{args.target.name}: {count:,} parameters, input {'x'.join(map(str, args.size))}")


if __name__ == "__main__":
    sys.exit(main())
