"""The real tritonserver behind the real Bento: values, what happens when Triton goes, and when it is back."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.base.errors import ServiceError
from components.base.volume_files import write_nifti
from serving.backends import TritonBackend
from serving.client import VelvetClient
from serving.runtime import OUTPUT, Package
from serving.server import running
from serving.triton import launcher
from tests.model import serving_project as project

pytestmark = pytest.mark.timeout(1200)  # the first run installs .venv-triton


def leftovers() -> list[str]:
    return [path.name for path in launcher.SHARED_MEMORY.glob("velvet_triton_*")]


@pytest.fixture(scope="module")
def repository() -> Path:
    return project.built_root() / "artifacts/package/triton"


def test_values_then_triton_down_then_back(tmp_path, repository):
    scan = tmp_path / "scan.nii.gz"
    write_nifti(project.scan_hu(5), project.affine(), scan)
    expected = project.offline_volume(project.scan_hu(5), project.affine())
    package = repository.parent
    server = launcher.start(repository, log=tmp_path / "triton.log")
    try:
        with (
            running(package, log=tmp_path / "serve.log", triton=server.grpc) as service,
            VelvetClient(service.url, retries=0) as client,
        ):
            assert service.get("/readyz") == 200
            assert client.info()["backend"] == "triton"
            np.testing.assert_allclose(client.embed_volume(scan), expected, atol=1e-5)
            texts = client.embed_text(project.REPORTS)
            np.testing.assert_allclose(texts, project.offline_texts(project.REPORTS), atol=1e-5)

            server.stop()
            for _ in range(3):
                started = time.monotonic()
                answer = httpx.post(f"{service.url}/embed_text", json={"reports": ["Effusion."]})
                assert time.monotonic() - started < 1.0
                assert answer.status_code == 503
                assert answer.json()["rule"] == "triton.down"
                assert int(answer.headers["retry-after"]) >= 1
            assert service.get("/readyz") == 503
            assert service.get("/livez") == 200

            server = launcher.start(repository, log=tmp_path / "triton2.log", grpc_port=server.grpc_port)
            deadline = time.monotonic() + 10
            while service.get("/readyz") != 200 and time.monotonic() < deadline:
                time.sleep(0.1)
            np.testing.assert_allclose(client.embed_volume(scan), expected, atol=1e-5)
    finally:
        server.stop()
    assert server.process.poll() is not None
    assert leftovers() == []


def test_another_model_in_triton_is_never_ready(tmp_path, repository):
    other = tmp_path / "triton"
    shutil.copytree(repository, other)
    for config in other.glob("*/config.pbtxt"):
        hash_ = config.read_text().rpartition('string_value: "')[2][:64]
        config.write_text(config.read_text().replace(hash_, "0" * 64))
    package = Package.open(repository.parent)

    async def ask(address: str) -> tuple[bool, str]:
        backend = TritonBackend(address, package)
        try:
            with pytest.raises(ServiceError) as caught:
                await backend.run("text_encoder", package.text_tensors(["Effusion."]))
            return await backend.ready(), caught.value.rule
        finally:
            await backend.close()

    with launcher.running(other, tmp_path / "triton.log") as server:
        assert asyncio.run(ask(server.grpc)) == (False, "triton.hash")
    assert leftovers() == []


def test_triton_itself_batches_and_refuses_a_wrong_shape(tmp_path, repository):
    import tritonclient.grpc as triton

    package = Package.open(repository.parent)
    volumes = np.concatenate(
        [package.volume_tensor(project.scan_hu(seed), project.affine()) for seed in range(3)]
    )
    with launcher.running(repository, tmp_path / "triton.log") as server:
        client = triton.InferenceServerClient(server.grpc)

        def infer(array: np.ndarray) -> np.ndarray:
            tensor = triton.InferInput("volume", list(array.shape), "FP32")
            tensor.set_data_from_numpy(array)
            return client.infer("volume_encoder", [tensor]).as_numpy(OUTPUT)

        batch = infer(volumes)
        np.testing.assert_allclose(
            batch, np.concatenate([infer(volume[None]) for volume in volumes]), atol=1e-5
        )
        offline = [project.offline_volume(project.scan_hu(seed), project.affine()) for seed in range(3)]
        np.testing.assert_allclose(batch, offline, atol=1e-5)
        with pytest.raises(triton.InferenceServerException, match="unexpected shape"):
            infer(volumes[:, :, :8])
        client.close()


def test_a_broken_repository_is_one_clear_error_and_leaves_nothing(tmp_path, repository):
    broken = tmp_path / "triton"
    shutil.copytree(repository, broken)
    (broken / "volume_encoder/1/model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ServiceError) as caught:
        launcher.start(broken, log=tmp_path / "triton.log", timeout_s=60)
    assert caught.value.rule.startswith("triton.")
    assert str(tmp_path) not in caught.value.render()
    assert leftovers() == []


def test_a_missing_repository_is_a_clear_error(tmp_path):
    with pytest.raises(ServiceError, match=r"triton\.repository"):
        launcher.start(tmp_path / "nothing", log=tmp_path / "triton.log")
