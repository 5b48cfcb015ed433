"""The real Bento: what it answers is what PyTorch computes offline."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.base.errors import InputError, ServiceError
from components.base.volume_files import write_nifti
from serving.client import VelvetClient
from serving.server import running
from tests.model import serving_project as project

PROMPTS = ["There is a pleural effusion.", "There is no pleural effusion.", "Cardiomegaly."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def scan(folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    write_nifti(project.scan_hu(5), project.affine(), path)
    return path


@pytest.fixture(scope="module")
def url(folder: Path):
    package = project.built_root() / "artifacts/package"
    with running(package, log=folder / "serve.log", variables={"VELVET_API_KEY": "secret"}) as server:
        yield server.url
    assert server.process.poll() is not None
    assert server.get("/livez") == 0


@pytest.fixture(scope="module")
def client(url: str):
    with VelvetClient(url, key="secret") as opened:
        yield opened


def test_a_served_volume_equals_the_offline_one(client, scan):
    expected = project.offline_volume(project.scan_hu(5), project.affine())
    found = client.embed_volume(scan)
    assert found.shape == expected.shape == (12,)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_served_texts_equal_offline_ones_and_a_batch_equals_singles(client):
    found = client.embed_text(project.REPORTS)
    np.testing.assert_allclose(found, project.offline_texts(project.REPORTS), atol=1e-5)
    singles = np.concatenate([client.embed_text([text]) for text in project.REPORTS])
    np.testing.assert_allclose(found, singles, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-5  # not one vector for everything


def test_zero_shot_is_the_softmax_of_similarities_at_the_models_temperature(client, scan):
    volume, prompts = (
        project.offline_volume(project.scan_hu(5), project.affine()),
        project.offline_texts(PROMPTS),
    )
    logits = prompts @ volume / 0.07
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    found = client.zero_shot(scan, PROMPTS)
    assert list(found) == PROMPTS
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-4)


def test_npy_with_an_affine_or_a_raw_body_gives_what_the_file_gives(client, url, scan):
    expected = client.embed_volume(scan)
    buffer = io.BytesIO()
    np.save(buffer, project.scan_hu(5))
    numbers = ",".join(map(str, project.affine().ravel()))
    auth = {"x-api-key": "secret"}
    answers = [
        httpx.post(
            f"{url}/embed_volume",
            files={"volume": ("x", buffer.getvalue())},
            data={"affine": numbers},
            headers=auth,
        ),
        httpx.post(
            f"{url}/embed_volume",
            content=buffer.getvalue(),
            params={"affine": numbers},
            headers={**auth, "content-type": "application/x-npy"},
        ),
        httpx.post(
            f"{url}/embed_volume",
            content=scan.read_bytes(),
            headers={**auth, "content-type": "application/gzip"},
        ),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["embedding"], expected, atol=1e-6)


def test_spacing_alone_means_axes_in_ras(client, folder):
    path = folder / "ras.npy"
    np.save(path, project.scan_hu(2))
    expected = project.offline_volume(project.scan_hu(2), np.diag([7.0, 7.0, 9.0, 1.0]))
    np.testing.assert_allclose(client.embed_volume(path, spacing_mm=(7, 7, 9)), expected, atol=1e-5)


def test_every_response_carries_the_model_hash(client, url):
    hash_ = json.loads((project.built_root() / "artifacts/package/model.json").read_text())["model_hash"]
    assert client.info()["model"] == client.info()["description"]["model_hash"] == hash_
    for path in ("/livez", "/readyz", "/nothing", "/ui/", "/embed_text", "/metrics"):
        assert httpx.get(url + path).headers["x-velvet-model"] == hash_


def test_info_shows_contract_card_and_seal(client):
    info = client.info()
    assert info["contract"]["size"] == list(project.SIZE)
    assert "Not a medical device" in info["card"]
    assert len(info["seal"]) == 64
    assert info["backend"] == "onnxruntime"


def test_the_key_is_asked_for_except_for_health_and_the_page(url, scan):
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert "Velvet" in httpx.get(f"{url}/", follow_redirects=True).text
    for path in ("/docs.json", "/metrics"):
        assert httpx.get(url + path).status_code == 401
    with VelvetClient(url, key="wrong") as stranger, pytest.raises(InputError, match=r"service\.key"):
        stranger.embed_volume(scan)


def test_the_page_loads_nothing_from_elsewhere(url):
    page = httpx.get(f"{url}/ui/").text
    assert "http://" not in page
    assert "https://" not in page
    assert "<script src" not in page


def test_bentos_own_client_works(url, scan, client):
    import bentoml

    with bentoml.SyncHTTPClient(url, token="secret") as native:
        found = native.embed_volume(volume=scan)
        texts = native.embed_text(reports=project.REPORTS[:1])
    np.testing.assert_allclose(found["embedding"], client.embed_volume(scan), atol=1e-6)
    np.testing.assert_allclose(texts["embeddings"], client.embed_text(project.REPORTS[:1]), atol=1e-6)


def test_a_truncated_scan_is_refused_with_the_rule(client, folder, scan):
    broken = folder / "broken.nii.gz"
    broken.write_bytes(scan.read_bytes()[:-1000])
    with pytest.raises(InputError) as caught:
        client.embed_volume(broken)
    assert caught.value.rule.startswith("volume.")
    assert len(caught.value.render().splitlines()) < 5


def test_the_command_line(url, scan):
    base = [sys.executable, "-m", "serving.client", "--url", url, "--key", "secret"]
    done = subprocess.run(
        [*base, "zero-shot", str(scan), *PROMPTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout).values()) == pytest.approx(1)
    bad = subprocess.run(
        [*base, "embed-volume", "missing.nii.gz"], capture_output=True, text=True, check=False
    )
    assert bad.returncode == InputError.exit_code
    assert "rule: client.scan" in bad.stderr


def test_a_client_without_a_service_says_so():
    with (
        VelvetClient("http://127.0.0.1:9", retries=0) as nobody,
        pytest.raises(ServiceError, match=r"client\.connection"),
    ):
        nobody.info()
