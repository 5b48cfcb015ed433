"""Both paths of the dual encoder go to ONNX with any batch size and text length, and give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from components.encoders import build
from components.encoders.dual import DualEncoder
from components.encoders.features import TextBatch
from components.encoders.tokenization import ReportTokenizer

TEXTS = ["No pleural effusion. The heart is enlarged.", "Normal chest. No nodule. Stable.", ""]
TOLERANCE = 1e-4


class VolumePath(nn.Module):
    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, volume: Tensor) -> Tensor:
        return self.encoder.encode_volume(volume)


class TextPath(nn.Module):
    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        batch = TextBatch(input_ids, token_type_ids, attention_mask, torch.full_like(input_ids, -1))
        return self.encoder.encode_text(batch)


@pytest.fixture(scope="module")
def encoder() -> DualEncoder:
    tokenizer = ReportTokenizer.train(TEXTS, 120, max_length=48)
    vision = {"name": "swin", "patch": 4, "window": 4, "embed_dim": 8, "depths": [2, 1, 1, 1]}
    vision |= {"heads": [2, 2, 2, 2], "gradient_checkpointing": True}
    text = {"name": "tribert", "hidden": 32, "layers": 2, "multimodal_layers": 1, "heads": 2, "ffn": 64}
    contract = {
        "spacing_mm": [2, 2, 2],
        "size": [48, 48, 48],
        "hu_window": [-1e3, 1e3],
        "output_range": [0, 1],
    }
    return build(vision, text, 16, tokenizer, contract).eval()


def session(path: Path) -> object:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_volume_path_is_one_graph_for_any_batch(encoder: DualEncoder) -> None:
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(
        VolumePath(encoder).eval(), (torch.rand(2, 1, 48, 48, 48),), dynamic_shapes=({0: batch},)
    ).module()
    for count in (1, 3):
        volume = torch.rand(count, 1, 48, 48, 48)
        with torch.no_grad():
            torch.testing.assert_close(program(volume), encoder.encode_volume(volume), atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_volume_path_to_onnx(encoder: DualEncoder, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=16)
    torch.onnx.export(
        VolumePath(encoder).eval(),
        (torch.rand(2, 1, 48, 48, 48),),
        str(tmp_path / "v.onnx"),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=["volume"],
        output_names=["unit_vector"],
        external_data=False,
        verbose=False,
    )
    run = session(tmp_path / "v.onnx")
    for count in (1, 3):
        volume = torch.rand(count, 1, 48, 48, 48)
        with torch.no_grad():
            wanted = encoder.encode_volume(volume).numpy()
        (found,) = run.run(None, {"volume": volume.numpy()})
        assert np.abs(found - wanted).max() <= TOLERANCE


def test_text_path_to_onnx(encoder: DualEncoder, tmp_path: Path) -> None:
    example = encoder.tokenizer.encode_text(TEXTS, pad_to=48)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=48)
    torch.onnx.export(
        TextPath(encoder).eval(),
        tuple(torch.from_numpy(example[name]) for name in names),
        str(tmp_path / "t.onnx"),
        dynamo=True,
        dynamic_shapes=({0: batch, 1: length},) * 3,
        input_names=names,
        output_names=["unit_vector"],
        external_data=False,
        verbose=False,
    )
    run = session(tmp_path / "t.onnx")
    for texts, pad_to in ((TEXTS, 48), (TEXTS[:1], None), (TEXTS[2:], None)):
        arrays = encoder.tokenizer.encode_text(texts, pad_to=pad_to)
        (found,) = run.run(None, {name: arrays[name] for name in names})
        assert np.abs(found - encoder.embed_reports(texts).numpy()).max() <= TOLERANCE


@pytest.fixture(scope="module")
def joint() -> DualEncoder:
    """COLIPRI in small: `primus` and `bert`, without projections."""
    tokenizer = ReportTokenizer.train(TEXTS, 120, max_length=48)
    vision = {"name": "primus", "patch": 8, "width": 24, "depth": 2, "heads": 2, "projection_dim": 16}
    text = {"name": "bert", "hidden": 16, "layers": 2, "heads": 2, "ffn": 32, "max_positions": 48}
    contract = {
        "spacing_mm": [2, 2, 2],
        "size": [16, 24, 32],
        "hu_window": [-1e3, 1e3],
        "output_range": [-1, 1],
    }
    made = build({**vision, "pool_heads": 4}, {**text, "pool_heads": 4}, 16, tokenizer, contract).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "gamma" in name:
                parameter.fill_(1.0)
            elif parameter.ndim > 1:
                parameter.mul_(4)
    return made


def test_primus_goes_through_the_servers_export(joint: DualEncoder, tmp_path: Path) -> None:
    from serving import export

    module, size = export.volume_graph(joint), joint.contract.size
    random = np.random.default_rng(0)
    feeds = [{"volume": random.normal(size=(n, 1, *size)).astype(np.float32)} for n in (2, 1, 3)]
    export.export(module, feeds[0], tmp_path / "volume.onnx", opset=20)
    rows = export.parity(module, tmp_path / "volume.onnx", feeds)
    assert [row["batch"] for row in rows] == [2, 1, 3]
    assert max(row["max_abs_error"] for row in rows) <= TOLERANCE
    with torch.no_grad():
        vectors = joint.encode_volume(torch.from_numpy(feeds[2]["volume"]))
    assert (vectors[0] - vectors[1]).abs().max() > 0.01, "the graph could be a constant otherwise"


def test_bert_goes_through_the_servers_export(joint: DualEncoder, tmp_path: Path) -> None:
    from serving import export

    module, names = export.text_graph(joint), ["input_ids", "token_type_ids", "attention_mask"]
    arrays = joint.tokenizer.encode_text(TEXTS, pad_to=48)
    feeds = [{name: arrays[name][rows] for name in names} for rows in (slice(0, 2), slice(1, 2), slice(0, 3))]
    export.export(module, feeds[0], tmp_path / "text.onnx", opset=20)
    rows = export.parity(module, tmp_path / "text.onnx", feeds)
    assert [row["batch"] for row in rows] == [2, 1, 3]
    assert max(row["max_abs_error"] for row in rows) <= TOLERANCE
    (found,) = session(tmp_path / "text.onnx").run(None, feeds[2])
    assert np.abs(found - joint.embed_reports(TEXTS).numpy()).max() <= TOLERANCE
