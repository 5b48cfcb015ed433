"""Dense maps, zero-shot maps and windows of dual encoders, and the joint encoders' form of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.base.errors import ConfigError
from components.encoders import build, from_pretrained
from components.encoders.dense import prompt_maps, similarity_maps
from components.encoders.dual import DualEncoder
from components.encoders.tokenization import ReportTokenizer

PROMPTS = ["No pleural effusion.", "Pleural effusion.", "The heart is enlarged."]
PRIMUS = {"name": "primus", "patch": 4, "width": 24, "depth": 2, "heads": 2, "projection_dim": 16}
PRIMUS |= {"pool_heads": 4}
BERT = {
    "name": "bert",
    "hidden": 16,
    "layers": 2,
    "heads": 2,
    "ffn": 32,
    "max_positions": 48,
    "pool_heads": 4,
}
SWIN = {
    "name": "swin",
    "patch": 2,
    "window": 4,
    "embed_dim": 4,
    "depths": [1, 1, 1, 1],
    "heads": [1, 1, 2, 2],
}
SIZE = (16, 16, 24)


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.train(PROMPTS, 120, max_length=48)


def make(tokenizer: ReportTokenizer, vision: dict[str, Any] = PRIMUS, **changes: Any) -> DualEncoder:
    contract = {"spacing_mm": [2, 2, 2], "size": SIZE, "hu_window": [-1e3, 1e3], "output_range": [-1, 1]}
    values = {"text": BERT, "embed_dim": 16, **changes}
    made = build(vision, tokenizer=tokenizer, contract=contract, **values).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "gamma" in name:
                parameter.fill_(1.0)
            elif parameter.ndim > 1:
                parameter.mul_(3)
    return made


@pytest.fixture(scope="module")
def encoder(tokenizer: ReportTokenizer) -> DualEncoder:
    return make(tokenizer)


def volume(*size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 1, *size, generator=torch.Generator().manual_seed(4))


def test_joint_encoders_have_no_projection(encoder: DualEncoder, tokenizer: ReportTokenizer) -> None:
    assert isinstance(encoder.volume_projection, nn.Identity)
    assert isinstance(encoder.report_projection, nn.Identity)
    features = encoder.vision(volume(*SIZE))
    torch.testing.assert_close(encoder.encode_volume(volume(*SIZE)), F.normalize(features.pooled, dim=-1))
    mixed = make(tokenizer, {**PRIMUS, "projection_dim": None, "width": 24}, text={**BERT, "projector": True})
    assert isinstance(mixed.volume_projection, nn.Linear)
    assert isinstance(mixed.report_projection, nn.Linear)
    assert mixed.encode_volume(volume(*SIZE)).shape == mixed.embed_reports(PROMPTS[:2]).shape == (2, 16)


@pytest.mark.parametrize(
    ("changes", "side"), [({"embed_dim": 24}, "vision"), ({"text": {**BERT, "hidden": 32}}, "text")]
)
def test_another_length_than_the_shared_space_is_refused(
    tokenizer: ReportTokenizer, changes: dict[str, Any], side: str
) -> None:
    with pytest.raises(ConfigError, match=f"the {side} encoder's vectors"):
        make(tokenizer, **changes)


def test_a_joint_encoder_comes_back_bit_for_bit(encoder: DualEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "encoder", "card")
    again = from_pretrained(tmp_path / "encoder")
    with torch.no_grad():
        assert torch.equal(again.encode_volume(volume(*SIZE)), encoder.encode_volume(volume(*SIZE)))
        assert torch.equal(again.dense(volume(*SIZE)), encoder.dense(volume(*SIZE)))
        assert torch.equal(again.embed_reports(PROMPTS), encoder.embed_reports(PROMPTS))


def test_dense_vectors_are_unit_vectors_on_the_patches(encoder: DualEncoder) -> None:
    dense = encoder.dense(volume(*SIZE))
    assert dense.shape == (2, 16, 4, 4, 6)
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(2, 4, 4, 6))


def test_equal_positions_are_the_volume_everywhere(encoder: DualEncoder) -> None:
    """Attention over equal tokens gives what one of them gives: map and classification agree."""
    same = torch.full((1, 1, *SIZE), 0.3)
    dense, pooled = encoder.dense(same), encoder.encode_volume(same)
    torch.testing.assert_close(dense, pooled[:, :, None, None, None].expand_as(dense), atol=1e-4, rtol=1e-4)
    prompts = encoder.embed_reports(PROMPTS)
    wanted = (pooled @ prompts.T / encoder.tau).softmax(-1)
    maps = encoder.zero_shot_maps(same, PROMPTS)
    torch.testing.assert_close(maps, wanted[:, :, None, None, None].expand(1, 3, *SIZE), atol=1e-3, rtol=1e-3)


def test_p19_prompts_compete_at_every_voxel(encoder: DualEncoder) -> None:
    """P19: the softmax runs over the prompts, not over the last axis of the volume."""
    maps = encoder.zero_shot_maps(volume(*SIZE), PROMPTS)
    assert maps.shape == (2, 3, *SIZE)
    torch.testing.assert_close(maps.sum(1), torch.ones(2, *SIZE))
    assert not torch.allclose(maps.sum(-1), torch.ones(2, 3, 16, 16), atol=0.1)
    order = [2, 0, 1]
    turned = encoder.zero_shot_maps(volume(*SIZE), [PROMPTS[n] for n in order])
    torch.testing.assert_close(turned, maps[:, order])


def test_maps_by_a_slow_loop(encoder: DualEncoder) -> None:
    dense, prompts = encoder.dense(volume(*SIZE)), encoder.embed_reports(PROMPTS)
    logits = similarity_maps(dense, prompts, 0.5)
    for x, y, z in ((0, 0, 0), (3, 1, 5), (2, 3, 4)):
        wanted = torch.stack([prompt @ dense[1, :, x, y, z] for prompt in prompts]) / 0.5
        torch.testing.assert_close(logits[1, :, x, y, z], wanted)
        torch.testing.assert_close(prompt_maps(logits)[1, :, x, y, z], wanted.softmax(0))
    enlarged = prompt_maps(logits, (12, 12, 18))  # thrice: the middle voxel lies on the patch's centre
    torch.testing.assert_close(enlarged[:, :, 1::3, 1::3, 1::3], prompt_maps(logits))


def test_windows_of_a_larger_volume(encoder: DualEncoder) -> None:
    """COLIPRI's 384^3 in eight windows of 192^3, in small."""
    large = volume(32, 32, 48, count=1)
    whole = encoder.dense(large, SIZE)
    assert whole.shape == (1, 16, 8, 8, 12)
    torch.testing.assert_close(whole[:, :, 4:, :4, 6:], encoder.dense(large[:, :, 16:, :16, 24:]))
    assert encoder.encode_volume(large, SIZE).shape == (1, 16)
    assert encoder.zero_shot_maps(large, PROMPTS, SIZE).shape == (1, 3, 32, 32, 48)
    assert torch.equal(
        encoder.encode_volume(large[..., :16, :16, :24], SIZE),
        encoder.encode_volume(large[..., :16, :16, :24]),
    )
    with pytest.raises(ConfigError, match="32x32x40"):
        encoder.encode_volume(large[..., :40], SIZE)


def test_an_average_pools_map_has_the_volume_as_its_mean(tokenizer: ReportTokenizer) -> None:
    encoder = make(tokenizer, SWIN)
    features = encoder.vision(volume(32, 32, 64))
    dense = encoder.volume_projection(encoder.vision.dense(features.scales).movedim(1, -1))
    torch.testing.assert_close(dense.mean((1, 2, 3)), encoder.volume_projection(features.pooled))
    assert encoder.dense(volume(32, 32, 64)).shape == (2, 16, 1, 1, 2)
    assert encoder.encode_volume(volume(64, 32, 32), (32, 32, 32)).shape == (2, 16)


def test_gradients_flow_through_windows(encoder: DualEncoder) -> None:
    encoder.zero_grad()
    encoder.dense(volume(32, 16, 24, count=1), SIZE)[:, 0].sum().backward()
    weight = encoder.vision.backbone.down_projection["proj"].weight
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    encoder.zero_grad(set_to_none=True)


def test_the_finer_contract_has_the_same_field_of_view(encoder: DualEncoder) -> None:
    import numpy as np

    from components.encoders.dense import finer_contract
    from components.volumes.contract import model_input

    finer = finer_contract(encoder.contract, 2)
    assert (finer.spacing_mm, finer.size) == ((1.0, 1.0, 1.0), (32, 32, 48))
    hu = np.random.default_rng(0).integers(-1000, 1000, (40, 30, 44)).astype(np.int16)
    large = torch.from_numpy(model_input(hu, finer))[None]
    assert encoder.encode_volume(large, encoder.contract.size).shape == (1, 16)
    with pytest.raises(ConfigError, match="spacing_mm"):
        finer_contract(encoder.contract, 100)


def test_an_encoder_whose_vector_is_not_of_its_scales_says_so(tokenizer: ReportTokenizer) -> None:
    encoder = make(tokenizer, {"name": "intensity", "bins": 4, "grid": 2})
    assert encoder.encode_volume(volume(*SIZE)).shape == (2, 16)
    with pytest.raises(ConfigError, match="no maps"):
        encoder.dense(volume(*SIZE))
    with pytest.raises(ConfigError, match="no windows"):
        encoder.encode_volume(volume(32, 16, 24), SIZE)
