"""Whatever a request holds, the answer is a 4xx of ours: no traceback, no 5xx, nothing quoted, nothing fetched."""

from __future__ import annotations

import gzip
import io
import json
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from components.base.volume_files import write_nifti
from tests.model import serving_project as project

SECRET = "Zebedee Quimby 1957-03-04"


@pytest.fixture(scope="module")
def app():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VELVET_PACKAGE", str(project.built_root() / "artifacts/package"))
        patch.delenv("VELVET_API_KEY", raising=False)
        patch.delenv("VELVET_TRITON", raising=False)
        from serving.service import VelvetEncoder

        with TestClient(VelvetEncoder.to_asgi(), raise_server_exceptions=False) as client:
            yield client


@pytest.fixture(scope="module")
def nifti(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_nifti(project.scan_hu(5), project.affine(), path)
    return path.read_bytes()


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def refused(answer, status: int | None = None, rule: str | None = None) -> None:
    """The answer is one of our errors and tells nothing of the machine or the request."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    body = answer.json()
    assert {"error", "rule", "fix"} <= body.keys()
    assert "Traceback" not in answer.text
    assert SECRET not in answer.text
    assert "/tmp" not in answer.text
    assert answer.headers["x-velvet-model"]
    if status:
        assert answer.status_code == status, answer.text
    if rule:
        assert body["rule"] == rule, answer.text


def upload(app, data: bytes, **fields):
    return app.post("/embed_volume", files={"volume": (f"{SECRET}.nii.gz", data)}, data=fields)


def test_a_good_one_passes(app, nifti):
    assert upload(app, nifti).status_code == 200


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(app, nifti, share):
    refused(upload(app, nifti[: int(len(nifti) * share)]))
    plain = gzip.decompress(nifti)
    refused(upload(app, plain[: int(len(plain) * share)]))


def test_bit_flips_never_pass_and_never_crash(app, nifti):
    generator = np.random.default_rng(0)
    for position in generator.integers(10, len(nifti) - 8, 40):  # past the gzip header's free bytes
        flipped = bytearray(nifti)
        flipped[position] ^= 1 << int(generator.integers(8))
        refused(upload(app, bytes(flipped)))


def test_pickle_is_never_read(app):
    body = b"\x80\x04\x95cposix\nsystem\n"
    refused(
        app.post("/embed_text", content=body, headers={"content-type": "application/vnd.bentoml+pickle"}), 415
    )
    array = np.empty((2, 2, 2), dtype=object)
    refused(upload(app, npy(array, allow_pickle=True), spacing_mm="1,1,1"), 400, "volume.dtype")


def test_a_url_is_never_fetched(app):
    seen: list[str] = []

    class Spy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Spy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/secret"
    boundary = f'--b\r\nContent-Disposition: form-data; name="volume"\r\n\r\n{address}\r\n--b--\r\n'
    kinds = {
        "multipart/form-data; boundary=b": boundary.encode(),
        "application/json": json.dumps({"volume": address}).encode(),
        "application/x-www-form-urlencoded": f"volume={address}".encode(),
        "application/octet-stream": address.encode(),
        "text/plain": address.encode(),
    }
    try:
        for kind, body in kinds.items():
            for path in ("/embed_volume", "/zero_shot"):
                refused(app.post(path, content=body, headers={"content-type": kind}))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert seen == []


def test_bombs_are_refused_in_a_moment(app):
    small = np.zeros((8, 8, 8), dtype=np.int16)
    header = bytearray(gzip.decompress(nifti_bytes(small)))
    struct.pack_into("<8h", header, 40, 3, 2000, 2000, 600, 1, 1, 1, 1)
    bomb = gzip.compress(bytes(header[:352]) + b"\0" * 50_000_000, 9)
    fake = npy(small).replace(b"(8, 8, 8)", b"(8000, 8000, 6)")
    for data, fields in ((bomb, {}), (fake, {"spacing_mm": "1,1,1"})):
        started = time.monotonic()
        refused(upload(app, data, **fields))
        assert time.monotonic() - started < 1.0


def nifti_bytes(array: np.ndarray) -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.nii.gz"
        write_nifti(array, np.eye(4), path)
        return path.read_bytes()


@pytest.mark.parametrize(
    ("array", "fields", "rule"),
    [
        (np.zeros((4, 4), np.int16), {"spacing_mm": "1,1,1"}, "volume.dimensions"),
        (np.zeros((20, 20, 20), np.complex64), {"spacing_mm": "1,1,1"}, "volume.dtype"),
        (np.full((20, 20, 20), np.nan, np.float32), {"spacing_mm": "1,1,1"}, "volume.finite"),
        (np.zeros((20, 20, 20), np.int16), {"spacing_mm": "5,5,5"}, "volume.constant"),
        (np.zeros((20, 20, 20), np.int16), {"spacing_mm": "0,1,1"}, "request.spacing_mm"),
        (np.zeros((20, 20, 20), np.int16), {"spacing_mm": "1,1"}, "request.spacing_mm"),
        (np.zeros((20, 20, 20), np.int16), {"affine": "1,2,nan"}, "request.affine"),
        (np.zeros((20, 20, 20), np.int16), {"affine": ",".join("0" * 16)}, "volume.spacing"),
        (np.zeros((20, 20, 20), np.int16), {}, "request.geometry"),
        (np.zeros((20, 20, 20), np.int16), {"spacing_mm": "900,900,900"}, "volume.spacing"),
    ],
)
def test_arrays_that_are_no_ct(app, array, fields, rule):
    refused(upload(app, npy(array), **fields), 400, rule)


def test_big_endian_and_fortran_order_give_the_same_embedding(app):
    hu = project.scan_hu(1)
    kinds = [hu, hu.astype(">i2"), np.asfortranarray(hu), hu.astype(np.float32)]
    found = [upload(app, npy(array), spacing_mm="7,7,9").json()["embedding"] for array in kinds]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"reports": []}',
        b'{"reports": "text"}',
        b'{"reports": [1]}',
        b'{"reports": [""]}',
        b'{"reports": ["\\ud800"]}',
        b'{"reports": ["a"], "more": 1}',
        b'{"reports": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps({"reports": ["a"] * 65}).encode(),
        json.dumps({"reports": [SECRET * 5000]}).encode(),
        b'{"reports": [' + b"9" * 10_000 + b"]}",
        b"\xff\xfe",
    ],
)
def test_malformed_json(app, body):
    refused(app.post("/embed_text", content=body, headers={"content-type": "application/json"}))


def test_oversized_json_is_413(app):
    body = json.dumps({"reports": ["a" * 5_000_000]}).encode()
    refused(
        app.post("/embed_text", content=body, headers={"content-type": "application/json"}),
        413,
        "request.size",
    )


@pytest.mark.parametrize("prompts", [None, "[]", "[1]", "[", '[""]'])
def test_zero_shot_without_usable_prompts(app, nifti, prompts):
    fields = {} if prompts is None else {"prompts": prompts}
    refused(app.post("/zero_shot", files={"volume": ("x", nifti)}, data=fields), 400)


def test_prompts_may_come_as_repeated_fields(app, nifti):
    answer = app.post(
        "/zero_shot", files={"volume": ("x", nifti)}, data={"prompts": ["a clear lung", "an effusion"]}
    )
    assert answer.status_code == 200
    assert len(answer.json()["scores"]) == 2


def test_the_log_holds_nothing_of_a_request(app, nifti, caplog):
    with caplog.at_level("DEBUG"):
        refused(upload(app, nifti[:500]))
        app.post("/embed_text", json={"reports": SECRET})
        app.post("/embed_text", json={"reports": [SECRET]})
    ours = [
        record
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore", "python_multipart"))
    ]
    assert not any(SECRET in record.getMessage() for record in ours)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(["/embed_volume", "/embed_text", "/zero_shot", "/info", "/nothing"]),
    kind=st.sampled_from(
        [
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=b",
            "application/x-npy",
            "application/gzip",
            "application/octet-stream",
            "application/vnd.bentoml+pickle",
            "application/x-www-form-urlencoded",
            "\x00",
            "",
        ]
    ),
    start=st.sampled_from(
        [b"", b"\x1f\x8b", b"\x93NUMPY\x01\x00", b"\x5c\x01\x00\x00", b"--b\r\n", b'{"reports":']
    ),
    rest=st.binary(max_size=600),
)
def test_fuzzed_requests_never_crash(app, path, kind, start, rest):
    answer = app.post(path, content=start + rest, headers={"content-type": kind})
    if path == "/info" and answer.status_code == 200:
        return
    refused(answer)


def test_the_body_limit_counts_what_arrives_not_what_is_announced():
    from serving.middleware import BodyLimit

    async def drain(scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(BodyLimit(drain, max_bytes=1000))

    def pieces():
        for _ in range(20):
            yield b"x" * 100

    assert client.post("/", content=b"x" * 1000).status_code == 200
    assert client.post("/", content=b"x" * 1001).status_code == 413
    assert client.post("/", content=pieces()).status_code == 413  # chunked: no Content-Length
