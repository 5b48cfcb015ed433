"""ONNX graphs: free batch axis, parity, the same bytes twice, for the encoders of the parameters in force."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch

from components.base.config import load_params
from components.base.errors import InputError
from serving import export
from serving.runtime import OUTPUT, TEXT_INPUTS
from tests.model import serving_project as project


def volumes(batch: int, size: tuple[int, ...], seed: int = 0) -> dict[str, np.ndarray]:
    return {"volume": np.random.default_rng(seed).uniform(-1, 1, (batch, 1, *size)).astype(np.float32)}


@pytest.fixture(scope="module")
def encoder():
    return project.make_encoder()


def test_any_batch_size_runs_and_a_batch_equals_singles():
    session = export.session(project.built_root() / "artifacts/package/onnx/volume_encoder.onnx", threads=1)
    feed = volumes(17, project.SIZE)
    (together,) = session.run([OUTPUT], feed)
    singles = [session.run([OUTPUT], {"volume": feed["volume"][row : row + 1]})[0] for row in range(17)]
    np.testing.assert_allclose(together, np.concatenate(singles), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_padding_to_the_fixed_length_does_not_change_a_texts_vector(encoder):
    graph = project.built_root() / "artifacts/package/onnx/text_encoder.onnx"
    arrays = encoder.tokenizer.encode_text(project.REPORTS, pad_to=encoder.tokenizer.max_length)
    feed = {name: arrays[name] for name in TEXT_INPUTS}
    (padded,) = export.session(graph).run([OUTPUT], feed)
    np.testing.assert_allclose(padded, encoder.embed_reports(project.REPORTS).numpy(), atol=1e-5)


def test_parity_sees_a_difference(encoder):
    other = project.make_encoder()
    with torch.no_grad():
        other.volume_projection.weight.mul_(-1)
    graph = project.built_root() / "artifacts/package/onnx/volume_encoder.onnx"
    feeds = [volumes(2, project.SIZE)]
    (good,) = export.parity(export.volume_graph(encoder), graph, feeds)
    (bad,) = export.parity(export.volume_graph(other), graph, feeds)
    assert good["max_abs_error"] < 1e-5
    assert bad["max_abs_error"] > 1e-3


def test_weights_beyond_a_protobuf_message_are_refused_before_the_export(encoder, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "LARGEST_BYTES", 100)
    with pytest.raises(InputError, match=r"export\.size"):
        export.export(export.volume_graph(encoder), volumes(2, project.SIZE), tmp_path / "x.onnx", opset=20)
    assert list(tmp_path.iterdir()) == []


def test_the_exporter_leaves_logging_and_warnings_as_they_were(encoder, tmp_path):
    log, filters = logging.getLogger("torch.onnx"), list(warnings.filters)
    before = log.level
    export.export(export.volume_graph(encoder), volumes(2, project.SIZE), tmp_path / "x.onnx", opset=20)
    assert log.level == before
    assert warnings.filters == filters
    assert (tmp_path / "x.onnx").read_bytes() == (
        project.built_root() / "artifacts/package/onnx/volume_encoder.onnx"
    ).read_bytes()


@pytest.mark.slow
def test_the_vision_encoder_in_force_exports_with_parity(tmp_path):
    values = load_params(project.PROJECT / "params.yaml")
    size = tuple(values["preprocess"]["contract"]["size"])
    module = export.volume_graph(project.make_encoder(values["pretrain"]["vision"]))
    path = tmp_path / "volume.onnx"
    export.export(module, volumes(2, size), path, opset=20)
    rows = export.parity(module, path, [volumes(batch, size, seed=1) for batch in (1, 2, 3)])
    assert [row["batch"] for row in rows] == [1, 2, 3]
    assert max(row["max_abs_error"] for row in rows) <= 1e-4
