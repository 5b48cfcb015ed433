"""The Bento service: embeddings of CT volumes and reports, and scores of a volume against prompts.

`bentoml serve serving.service:VelvetEncoder` (or `make serve`). ONNX Runtime runs in the process unless
`VELVET_TRITON=host:port` names a Triton server. Bento's own reading of inputs is not used: it fetches URLs that a
caller names and logs the values of bad requests, which may hold PHI; `serving.uploads` reads the body instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from components.base.errors import ServiceError, VelvetError
from serving import uploads
from serving.backends import Backend, OnnxBackend, TritonBackend
from serving.middleware import INTERNAL, OWN_HEADER, ApiKey, BodyLimit, Envelope, Front, Load
from serving.runtime import Package, package_folder

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY_BYTES = int(os.environ.get("VELVET_MAX_BODY_MB", "512")) * 1_000_000
MAX_IN_FLIGHT = int(os.environ.get("VELVET_MAX_IN_FLIGHT", "4"))
STATUS = {"request.type": 415, "request.size": 413, "volume.too_large": 413}
WEB = Path(__file__).with_name("web")
log = logging.getLogger("velvet.serving")


class _Unread(bentoml.IODescriptor):
    """An input that Bento describes in its documents and leaves unread for `serving.uploads`."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> bentoml.IODescriptor:
        """An empty instance; nothing of the request is touched."""
        return cls.model_construct()


class VolumeInput(_Unread):
    """A scan: .nii.gz, .nii, or .npy in HU [X, Y, Z] with `affine` or `spacing_mm`."""

    volume: Path = Field(default_factory=Path)
    affine: str | None = None
    spacing_mm: str | None = None


class ZeroShotInput(VolumeInput):
    """A scan and the prompts to score it against."""

    prompts: list[str] | None = None


class TextInput(_Unread):
    """Reports or sentences, 1 to 64."""

    reports: list[str] | None = None


class Nothing(_Unread):
    """No input."""


class Answer(bentoml.IODescriptor):
    """A JSON object."""


class _State:
    """What the running process serves; middleware is made before the service's instance is."""

    package: Package | None = None


def _model_hash() -> str:
    return _State.package.model_hash if _State.package else "none"


Handler = Callable[..., Awaitable[dict[str, Any]]]


def answers(handler: Handler) -> Callable[..., Awaitable[JSONResponse]]:
    """Turn a handler's result, or its error, into a JSON response; an unexpected error says nothing of the request."""

    async def respond(self: Any, ctx: bentoml.Context, **_: Any) -> JSONResponse:
        response = await _answer(handler, self, ctx.request)
        ctx.response.status_code = response.status_code  # Bento puts its own status over the response's
        return response

    # functools.wraps would show Bento the handler's signature, which has no context
    respond.__name__, respond.__doc__ = handler.__name__, handler.__doc__
    return respond


async def _answer(handler: Handler, service: Any, request: Request) -> JSONResponse:
    try:
        return JSONResponse({**await handler(service, request), "model": _model_hash()})
    except ServiceError as error:
        return _failure(503, error.what, error.rule, error.fix, {"retry-after": "1"})
    except VelvetError as error:
        return _failure(STATUS.get(error.rule, 400), error.what, error.rule, error.fix)
    except ClientDisconnect:
        return _failure(400, "the request ended early", "request.disconnect", "send it again")
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        log.error("%s at %s:%s", type(error).__name__, Path(frame.filename).name, frame.lineno)
        return _failure(500, *INTERNAL)


def _failure(
    status: int, what: str, rule: str, fix: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    body = {"error": what, "rule": rule, "fix": fix, "model": _model_hash()}
    return JSONResponse(body, status, headers={OWN_HEADER: rule, **(headers or {})})


@bentoml.service(name="velvet_encoder", workers=1, traffic={"timeout": 120})
class VelvetEncoder:
    """Embeds CT volumes and radiology reports into one space. Not a medical device."""

    def __init__(self) -> None:
        """Verify and open the package; if that fails the service stays up, never ready, and says why."""
        self.package: Package | None = None
        self.backend: Backend | None = None
        self.problem = ServiceError(
            "the package is not open yet", rule="service.ready", fix="try again shortly"
        )
        try:
            package = Package.open(package_folder())
            address = os.environ.get("VELVET_TRITON")
            threads = int(os.environ.get("VELVET_THREADS", "0"))
            self.backend = TritonBackend(address, package) if address else OnnxBackend(package, threads)
            self.package = _State.package = package
        except VelvetError as error:
            log.error("not ready: %s (%s)", error.what, error.rule)
            self.problem = ServiceError(error.what, rule=error.rule, fix=error.fix)

    async def __is_ready__(self) -> bool:
        """Ready only with verified weights and, where Triton computes, with the same model in Triton."""
        return self.backend is not None and await self.backend.ready()

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Close the connection to Triton."""
        if self.backend is not None:
            await self.backend.close()

    def _open(self) -> tuple[Package, Backend]:
        if self.package is None or self.backend is None:
            raise self.problem
        return self.package, self.backend

    async def _volume(self, scan: uploads.Scan) -> Any:
        """The embedding [P] of an uploaded scan."""
        package, backend = self._open()
        tensor = await asyncio.to_thread(package.scan_tensor, scan)
        return (await backend.run("volume_encoder", {"volume": tensor}))[0]

    async def _texts(self, texts: list[str]) -> Any:
        """The embeddings [N, P] of texts."""
        package, backend = self._open()
        return await backend.run("text_encoder", await asyncio.to_thread(package.text_tensors, texts))

    @bentoml.api(input_spec=VolumeInput, output_spec=Answer)
    @answers
    async def embed_volume(self, request: Request) -> dict[str, Any]:
        """`{"embedding": [P floats]}`, L2-normalised, of one scan."""
        self._open()
        async with uploads.uploaded(request) as scan:
            return {"embedding": (await self._volume(scan)).tolist()}

    @bentoml.api(input_spec=TextInput, output_spec=Answer)
    @answers
    async def embed_text(self, request: Request) -> dict[str, Any]:
        """`{"embeddings": [[P floats], ...]}`, L2-normalised, of `{"reports": [...]}`."""
        self._open()
        texts = await uploads.read_texts(request, "reports")
        return {"embeddings": (await self._texts(texts)).tolist()}

    @bentoml.api(input_spec=ZeroShotInput, output_spec=Answer)
    @answers
    async def zero_shot(self, request: Request) -> dict[str, Any]:
        """`{"scores": [...], "similarities": [...]}` of one scan against `prompts`, in their order."""
        package, _ = self._open()
        async with uploads.uploaded(request) as scan:
            prompts = uploads.form_texts(scan.fields, "prompts")
            volume = await self._volume(scan)
        similarities, scores = package.scores(volume, await self._texts(prompts))
        return {"scores": scores, "similarities": similarities}

    @bentoml.api(input_spec=Nothing, output_spec=Answer)
    @answers
    async def info(self, request: Request) -> dict[str, Any]:
        """The model's description, its preprocessing contract, its card and the seal of its package."""
        package, backend = self._open()
        return {
            "description": package.model,
            "contract": package.contract.model_dump(mode="json"),
            "card": package.card,
            "seal": package.seal,
            "backend": "triton" if isinstance(backend, TritonBackend) else "onnxruntime",
        }


_service: Any = VelvetEncoder  # the decorator returns Bento's Service, which type checkers do not see
_service.add_asgi_middleware(Envelope, model_hash=_model_hash)
_service.add_asgi_middleware(Front)
_service.add_asgi_middleware(ApiKey)
_service.add_asgi_middleware(Load, max_in_flight=MAX_IN_FLIGHT)
_service.add_asgi_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
_service.mount_asgi_app(StaticFiles(directory=WEB, html=True), path="/ui", name="ui")
