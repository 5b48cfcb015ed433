"""The dual encoder: building, unit vectors, temperature, saving, strict loading, contracts."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.base.errors import ConfigError, ContractError, InputError, IntegrityError
from components.base.files import sha256_folder
from components.encoders import build, check_contract, from_pretrained
from components.encoders.dual import DualEncoder
from components.encoders.features import TextBatch
from components.encoders.tokenization import ReportTokenizer

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["No pleural effusion. The heart is enlarged.", "Normal chest.", ""]
VISION = {
    "name": "swin",
    "patch": 4,
    "window": 4,
    "embed_dim": 8,
    "depths": [2, 2, 2, 2],
    "heads": [2, 2, 4, 4],
}
TEXT = {
    "name": "tribert",
    "hidden": 32,
    "layers": 2,
    "multimodal_layers": 1,
    "heads": 2,
    "ffn": 64,
    "max_positions": 64,
}
CONTRACT = {
    "spacing_mm": [2.0, 2.0, 2.0],
    "size": [32, 32, 32],
    "hu_window": [-1000.0, 1000.0],
    "output_range": [0.0, 1.0],
}


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.train(TEXTS, 120, max_length=64)


def make(tokenizer: ReportTokenizer, **changes: Any) -> DualEncoder:
    values = {"vision": VISION, "text": TEXT, "embed_dim": 16, "contract": CONTRACT, **changes}
    return build(tokenizer=tokenizer, **values)


@pytest.fixture(scope="module")
def encoder(tokenizer: ReportTokenizer) -> DualEncoder:
    return make(tokenizer).eval()


@pytest.fixture
def folder(encoder: DualEncoder, tmp_path: Path) -> Path:
    encoder.save_pretrained(tmp_path / "encoder", "# A model\n\nNot for clinical use.")
    return tmp_path / "encoder"


def embed(encoder: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    volumes = torch.rand(3, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return encoder.encode_volume(volumes), encoder.embed_reports(TEXTS)


def test_embeddings_are_unit_vectors_of_both_sides(encoder: DualEncoder) -> None:
    volumes, reports = embed(encoder)
    assert volumes.shape == reports.shape == (3, 16)
    torch.testing.assert_close(volumes.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(reports.norm(dim=1), torch.ones(3))
    assert encoder.embed_reports([]).shape == (0, 16)


def test_reports_in_batches_equal_single_ones(encoder: DualEncoder) -> None:
    together = encoder.embed_reports(TEXTS)
    torch.testing.assert_close(encoder.embed_reports(TEXTS, batch_size=2), together, atol=1e-5, rtol=0)
    single = torch.cat([encoder.embed_reports([text]) for text in TEXTS])
    torch.testing.assert_close(single, together, atol=1e-5, rtol=0)


def test_projections_of_features_equal_the_direct_path(encoder: DualEncoder) -> None:
    batch = TextBatch.from_arrays(encoder.tokenizer.encode_text(TEXTS))
    volumes = torch.rand(2, 1, 32, 32, 32)
    torch.testing.assert_close(encoder.project_report(encoder.text(batch)), encoder.encode_text(batch))
    torch.testing.assert_close(
        encoder.project_volume(encoder.vision(volumes)), encoder.encode_volume(volumes)
    )


def test_temperature_is_stored_directly_and_bounded_with_a_gradient(tokenizer: ReportTokenizer) -> None:
    encoder = make(tokenizer)
    assert encoder.temperature.item() == pytest.approx(0.07)
    assert encoder.tau.item() == pytest.approx(0.07)
    with torch.no_grad():
        encoder.temperature.fill_(-0.5)
    assert encoder.tau.item() == pytest.approx(0.01)
    encoder.tau.backward()
    assert encoder.temperature.grad is not None
    assert encoder.temperature.grad.item() == 1.0


def test_build_is_the_same_whatever_ran_before(tokenizer: ReportTokenizer) -> None:
    first = make(tokenizer)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    second, other = make(tokenizer), make(tokenizer, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    for (name, one), two in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(first.volume_projection.weight, other.volume_projection.weight)


def test_round_trip_is_bit_for_bit(encoder: DualEncoder, folder: Path, tmp_path: Path) -> None:
    loaded = from_pretrained(folder)
    assert not loaded.training
    for one, two in zip(embed(encoder), embed(loaded), strict=True):
        assert torch.equal(one, two)
    assert loaded.contract == encoder.contract
    assert loaded.contract.tokenizer_hash == encoder.tokenizer.hash
    loaded.save_pretrained(tmp_path / "again", "# A model\n\nNot for clinical use.\n")
    assert sha256_folder(tmp_path / "again") == sha256_folder(folder)
    assert sorted(file.name for file in folder.iterdir()) == [
        "card.md",
        "config.json",
        "contract.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_loading_works_without_network_or_bert_folder_and_leaks_no_path(
    tokenizer: ReportTokenizer, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertModel

    bert = tmp_path / "secret-bert"
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(bert)
    built = make(tokenizer, text={**TEXT, "initial_weights": str(bert)})
    assert not torch.equal(
        built.text.state_dict()["embeddings.words.weight"],
        make(tokenizer).text.state_dict()["embeddings.words.weight"],
    )
    built.eval().save_pretrained(tmp_path / "encoder", "card")
    shutil.rmtree(bert)
    assert torch.equal(from_pretrained(tmp_path / "encoder").embed_reports(TEXTS), built.embed_reports(TEXTS))
    assert b"secret-bert" not in b"".join(f.read_bytes() for f in (tmp_path / "encoder").iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "contract.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        from_pretrained(folder)


def header(values: dict[str, Any], body: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(values).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 200_000_000) + b"{}",
        struct.pack("<Q", 5) + b"{{{{{",
        header({"a": ONE}),
        header({"a": ONE}, b"\0" * 4, length=10_000),
        header({"a": {**ONE, "shape": [2**62, 8]}}, b"\0" * 4),
        header({"a": {**ONE, "dtype": "PICKLE"}}, b"\0" * 4),
        header({"a": {**ONE, "data_offsets": [4, 0]}}, b"\0" * 4),
        header({"a": ONE, "b": ONE}, b"\0" * 4),
        header({"a": ONE}, b"\0" * 4),
        b"\x80\x04\x95cposix\nsystem\n",
    ],
)
def test_malformed_weights_are_refused(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError):
        from_pretrained(folder)


def test_truncated_weights_are_refused_at_every_cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for cut in range(0, len(whole), len(whole) // 12):
        file.write_bytes(whole[:cut])
        with pytest.raises(IntegrityError):
            from_pretrained(folder)
    file.write_bytes(whole + b"\0")
    with pytest.raises(IntegrityError):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda s: s.pop("temperature"), "weights.names"),
        (lambda s: s.update(extra=torch.zeros(1)), "weights.names"),
        (lambda s: s.update(temperature=torch.zeros(2)), "weights.shape"),
        (lambda s: s.update(temperature=torch.tensor(0.07).double()), "weights.shape"),
        (lambda s: s.update(temperature=torch.tensor(float("nan"))), "weights.values"),
        (
            lambda s: next(v for k, v in s.items() if k.endswith("position_index")).add_(10**6),
            "weights.values",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder: Path, change: Any, rule: str) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(IntegrityError) as caught:
        from_pretrained(folder)
    assert caught.value.rule == rule
    assert len(caught.value.render().splitlines()) < 5


def test_config_of_something_else_is_refused(folder: Path) -> None:
    for text in ("[]", '{"format": "other"}', '{"format": "velvet.dual-encoder/1"}', "{"):
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError):
            from_pretrained(folder)


def test_another_tokenizer_is_refused_at_load(folder: Path) -> None:
    other = ReportTokenizer.train([*TEXTS, "lesion lesion"], 120, max_length=64)
    (folder / "tokenizer.json").write_text(other.to_json())
    with pytest.raises(ContractError, match="tokenizer_hash"):
        from_pretrained(folder)


def test_check_contract_shows_the_difference(encoder: DualEncoder) -> None:
    check_contract(encoder, CONTRACT)
    check_contract(encoder, {**CONTRACT, "data_hash": "of other data"})
    check_contract(encoder, encoder.contract)
    for change in ({"hu_window": [-160.0, 240.0]}, {"spacing_mm": [1.0, 2.0, 2.0]}, {"tokenizer_hash": "x"}):
        with pytest.raises(ContractError, match=next(iter(change))) as caught:
            check_contract(encoder, {**CONTRACT, **change})
        assert len(caught.value.render().splitlines()) < 5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"vision": {**VISION, "name": "swim"}}, "did you mean 'swin'"),
        ({"vision": {**VISION, "wndow": 3}}, "did you mean 'window'"),
        ({"vision": {"patch": 2}}, "has no name"),
        ({"text": {**TEXT, "max_positions": 32}}, "max_length is 64"),
        ({"text": {**TEXT, "max_sentences": 8}}, "max_sentences is 50"),
        ({"text": {**TEXT, "heads": 5}}, "does not divide"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"contract": {**CONTRACT, "size": [1, 2]}}, "contract.size"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tokenizer: ReportTokenizer, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        make(tokenizer, **changes)


def test_a_failed_save_leaves_the_old_folder(
    encoder: DualEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sha256_folder(folder)
    monkeypatch.setattr(
        type(encoder.tokenizer), "to_json", lambda self: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(Exception, match="full"):
        encoder.save_pretrained(folder, "another card")
    assert sha256_folder(folder) == before
    assert [item.name for item in folder.parent.iterdir()] == ["encoder"]


def test_importing_the_room_imports_no_torch() -> None:
    code = "import sys, components.encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_new_encoder_is_one_file(
    tokenizer: ReportTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "scratch_encoders" / "encoders" / "vision"
    package.mkdir(parents=True)
    for part in (package, package.parent, package.parent.parent):
        (part / "__init__.py").write_text("")
    (package / "mean.py").write_text(
        "from components.base.config import Config\n"
        "from components.encoders.features import VolumeFeatures\n"
        "from components.encoders.interfaces import VisionEncoder\n"
        "from components.encoders.vision import VISION\n"
        "class MeanParams(Config):\n    pool: int = 8\n"
        "@VISION.register('mean')\n"
        "class Mean(VisionEncoder):\n"
        "    Params = MeanParams\n    channels = (1,)\n    embed_dim = 1\n"
        "    def __init__(self, params):\n        super().__init__()\n        self.pool = params.pool\n"
        "    def forward(self, volume):\n"
        "        import torch.nn.functional as F\n"
        "        small = F.avg_pool3d(volume, self.pool)\n"
        "        return VolumeFeatures((small,), small.mean((2, 3, 4)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("VELVET_PLUGINS", "scratch_encoders")
    built = make(tokenizer, vision={"name": "mean", "pool": 4}).eval()
    built.save_pretrained(tmp_path / "encoder", "card")
    loaded = from_pretrained(tmp_path / "encoder")
    for one, two in zip(embed(built), embed(loaded), strict=True):
        assert torch.equal(one, two)
