"""Starting a text encoder's layers from a local BERT, such as CXR-BERT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from components.base.errors import ConfigError, InputError

if TYPE_CHECKING:
    from components.encoders.text.bert import Bert
    from components.encoders.text.tribert import TriBert
    from components.encoders.tokenization import ReportTokenizer


def load_bert(encoder: TriBert, folder: Path, tokenizer: ReportTokenizer) -> None:
    """Copy embeddings and layers of the BERT in `folder` into the text layers of `encoder`.

    The number of heads may differ: heads are slices of the same matrices, so regrouping copies them as they
    are. The rows of sentence markers are copied from `[CLS]`, the rows of sentence types from type 0.
    The multimodal layers keep their random weights. The tokenizer must come from the same folder
    (`ReportTokenizer.from_folder`): row i of both tables is then the same token.
    """
    bert = read_bert(folder)
    _check_sizes(encoder, bert, tokenizer)
    with torch.no_grad():
        _copy_embeddings(encoder, bert.embeddings, tokenizer)
        for mine, theirs in zip(encoder.text_layers, bert.encoder.layer, strict=False):
            copy_layer(mine, theirs)


def load_plain_bert(encoder: Bert, folder: Path) -> None:
    """Copy the BERT in `folder` into a `bert` encoder; every size must be equal, layers on top may be left out."""
    bert = read_bert(folder)
    mine, theirs = encoder.params, bert.config
    _require_equal(
        [
            ("hidden", mine.hidden, theirs.hidden_size),
            ("ffn", mine.ffn, theirs.intermediate_size),
            ("heads", mine.heads, theirs.num_attention_heads),
            ("layers", min(mine.layers, theirs.num_hidden_layers), mine.layers),
            ("max_positions", min(mine.max_positions, theirs.max_position_embeddings), mine.max_positions),
            ("types", mine.types, theirs.type_vocab_size),
            ("vocab_rows", encoder.embeddings.words.num_embeddings, theirs.vocab_size),
        ]
    )
    with torch.no_grad():
        tables, rows = encoder.embeddings, bert.embeddings
        tables.words.weight.copy_(rows.word_embeddings.weight)
        tables.positions.weight.copy_(rows.position_embeddings.weight[: mine.max_positions])
        tables.types.weight.copy_(rows.token_type_embeddings.weight)
        _copy(tables.norm, rows.LayerNorm)
        for layer, source in zip(encoder.layers, bert.encoder.layer, strict=False):
            copy_layer(layer, source)


def read_bert(folder: Path) -> Any:
    """The `BertModel` of a local folder (any model with BERT's weights below `bert.`), offline, no pickle."""
    from transformers import BertModel
    from transformers.utils import logging

    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise InputError(
            "initial_weights is not the local folder of a BERT with config.json and model.safetensors",
            rule="encoder.initial_weights",
            fix="download the model beforehand and give its folder, or set initial_weights to null",
        )
    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # heads that the folder holds beside the body are left out on purpose
    try:
        bert = BertModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, add_pooling_layer=False
        )
    finally:
        logging.set_verbosity(level)
    if bert.config.hidden_act != "gelu":
        raise ConfigError(
            f"the BERT of initial_weights uses {bert.config.hidden_act!r}",
            rule="encoder.initial_weights",
            fix="give a BERT whose hidden_act is gelu",
        )
    return bert


def _check_sizes(encoder: TriBert, bert: Any, tokenizer: ReportTokenizer) -> None:
    mine, theirs = encoder.params, bert.config
    markers = {int(number) for number in tokenizer.marker_ids}
    smallest_new = min(
        (number for number in markers if number >= theirs.vocab_size), default=theirs.vocab_size
    )
    pairs = [
        ("hidden", mine.hidden, theirs.hidden_size),
        ("ffn", mine.ffn, theirs.intermediate_size),
        ("layers", min(mine.layers, theirs.num_hidden_layers), mine.layers),
        ("max_positions", min(mine.max_positions, theirs.max_position_embeddings), mine.max_positions),
        ("vocabulary", smallest_new, theirs.vocab_size),
        (
            "vocabulary",
            tokenizer.vocab_size - len([m for m in markers if m >= theirs.vocab_size]),
            theirs.vocab_size,
        ),
    ]
    _require_equal(pairs)


def _require_equal(pairs: list[tuple[str, int, int]]) -> None:
    for name, value, wanted in pairs:
        if value != wanted:
            raise ConfigError(
                f"the BERT of initial_weights does not fit: {name} is {value}, not {wanted}",
                rule="encoder.initial_weights",
                fix="give the sizes of that BERT to the text encoder and load the tokenizer from its folder",
            )


def _copy_embeddings(encoder: TriBert, theirs: Any, tokenizer: ReportTokenizer) -> None:
    mine = encoder.embeddings
    rows = theirs.word_embeddings.weight
    mine.words.weight[: len(rows)] = rows
    mine.words.weight[torch.as_tensor(tokenizer.marker_ids)] = rows[tokenizer.cls_id]
    mine.words.weight[tokenizer.pad_id] = 0
    mine.positions.weight.copy_(theirs.position_embeddings.weight[: len(mine.positions.weight)])
    mine.types.weight[1:] = theirs.token_type_embeddings.weight[0]
    _copy(mine.norm, theirs.LayerNorm)


def copy_layer(mine: Any, theirs: Any) -> None:
    """Copy a layer of `BertModel` into a `Layer`; key and value become one matrix."""
    attention = theirs.attention.self
    _copy(mine.attention.query, attention.query)
    for name in ("weight", "bias"):
        parts: list[Tensor] = [getattr(attention.key, name), getattr(attention.value, name)]
        getattr(mine.attention.key_value, name).copy_(torch.cat(parts))
    _copy(mine.attention.output, theirs.attention.output.dense)
    _copy(mine.attention_end.norm, theirs.attention.output.LayerNorm)
    _copy(mine.ffn_in, theirs.intermediate.dense)
    _copy(mine.ffn_out, theirs.output.dense)
    _copy(mine.ffn_end.norm, theirs.output.LayerNorm)


def _copy(mine: nn.Module, theirs: nn.Module) -> None:
    mine.load_state_dict(theirs.state_dict())
