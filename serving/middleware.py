"""What every request passes before a handler: key, size, load; and what every response carries: the model's hash.

Plain ASGI, so that the body is counted as it streams in (a Content-Length may be absent or wrong) and every
error, also of the framework, leaves as one of ours: no traceback, nothing of the request quoted.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/livez", "/readyz", "/healthz"})
WORK_PATHS = frozenset({"/embed_volume", "/embed_text", "/zero_shot"})
PICKLE = "application/vnd.bentoml+pickle"
MODEL_HEADER = "x-velvet-model"
OWN_HEADER = "x-velvet-error"
GENERIC = {
    400: (
        "the request cannot be read",
        "request.invalid",
        "GET /ui or POST /info shows what the service takes",
    ),
    404: (
        "there is nothing at this address",
        "request.path",
        "POST to /embed_volume, /embed_text or /zero_shot",
    ),
    405: ("this address takes another method", "request.method", "use POST"),
    429: ("the service is busy", "service.busy", "try again after the time in Retry-After"),
    503: ("the service is not ready", "service.ready", "try again after the time in Retry-After"),
    504: ("the request took too long", "service.timeout", "try again, or send a smaller volume"),
}

INTERNAL = ("something went wrong inside the service", "service.internal", "read the service's log")


async def answer(send: Send, status: int, what: str, rule: str, fix: str, retry_s: int | None = None) -> None:
    """Send one JSON error."""
    body = json.dumps({"error": what, "rule": rule, "fix": fix}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (OWN_HEADER.encode(), rule.encode()),
    ]
    if retry_s is not None:
        headers.append((b"retry-after", str(retry_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Envelope:
    """Outermost: the model's hash on every response, and our words in place of the framework's errors."""

    def __init__(self, app: App, model_hash: Callable[[], str]) -> None:
        """`model_hash` is asked at each response: the package is opened after the app is made."""
        self.app, self.model_hash = app, model_hash

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and rewrite the response."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        stamp = (MODEL_HEADER.encode(), self.model_hash().encode())
        replaced = started = False

        async def outgoing(message: Message) -> None:
            nonlocal replaced, started
            if message["type"] == "http.response.start":
                headers = [
                    item for item in message.get("headers", []) if item[0].lower() != OWN_HEADER.encode()
                ]
                own = len(headers) < len(message.get("headers", []))
                started = True
                if message["status"] >= 400 and not own and scope["path"] not in OPEN_PATHS:
                    replaced = True
                    await self._replace(message["status"], send, stamp)
                    return
                message = {**message, "headers": [*headers, stamp]}
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, outgoing)
        except Exception:
            if started:
                raise
            await self._replace(500, send, stamp)
        return None

    async def _replace(self, status: int, send: Send, stamp: tuple[bytes, bytes]) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [item for item in message["headers"] if item[0] != OWN_HEADER.encode()]
                message = {**message, "headers": [*kept, stamp]}
            await send(message)

        words = GENERIC.get(status, INTERNAL if status >= 500 else GENERIC[400])
        await answer(stamped, status, *words, retry_s=1 if status in (429, 503) else None)


class Front:
    """Shows our page at `/` in place of the framework's, which loads scripts and trackers from elsewhere."""

    def __init__(self, app: App) -> None:
        """Nothing to configure."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirect `/`, pass on everything else."""
        if scope["type"] != "http" or scope["path"] != "/":
            return await self.app(scope, receive, send)
        headers = [(b"location", b"/ui/"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 307, "headers": headers})
        return await send({"type": "http.response.body", "body": b""})


class ApiKey:
    """Asks for `Authorization: Bearer KEY` (or `X-Api-Key`) where `VELVET_API_KEY` is set; health stays open."""

    def __init__(self, app: App) -> None:
        """The key is read once, at start."""
        self.app, self.key = app, os.environ.get("VELVET_API_KEY", "").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it holds the key."""
        public = scope["type"] != "http" or scope["path"] in OPEN_PATHS or scope["path"].startswith("/ui")
        if not self.key or public:
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if hmac.compare_digest(given, self.key):
            return await self.app(scope, receive, send)
        fix = "send `Authorization: Bearer KEY` with the key of this service"
        return await answer(send, 401, "the API key is missing or wrong", "service.key", fix)


class BodyLimit:
    """Refuses pickles (415) and bodies above a number of bytes (413), counted as they arrive."""

    def __init__(self, app: App, max_bytes: int) -> None:
        """`max_bytes` counts the body as sent."""
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while its body stays within the limit."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == PICKLE.encode():
            fix = "send a file or JSON"
            return await answer(send, 415, "pickled bodies are not read", "request.pickle", fix)
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.max_bytes:
            return await self._too_large(send)
        total, over, started = 0, False, False

        async def counted() -> Message:
            nonlocal total, over
            if over:
                return {"type": "http.disconnect"}
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.max_bytes:
                over = True  # raising here would become a 500 inside the framework
                return {"type": "http.disconnect"}
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if not over:
                started = True
                await send(message)

        try:
            await self.app(scope, counted, guarded)
        except Exception:
            if not over:
                raise
        if over and not started:
            await self._too_large(send)
        return None

    async def _too_large(self, send: Send) -> None:
        what = f"the body has more than {self.max_bytes / 1e6:.0f} MB"
        await answer(send, 413, what, "request.size", "send one compressed series (.nii.gz)")


class Load:
    """Lets a fixed number of requests in at a time; the rest hear 429 with Retry-After at once."""

    def __init__(self, app: App, max_in_flight: int) -> None:
        """`max_in_flight` bounds memory and the wait of those let in."""
        self.app, self.max_in_flight, self.in_flight = app, max_in_flight, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if there is room."""
        if scope["type"] != "http" or scope["path"] not in WORK_PATHS:
            return await self.app(scope, receive, send)
        if self.in_flight >= self.max_in_flight:
            return await answer(send, 429, *GENERIC[429], retry_s=1)
        self.in_flight += 1
        try:
            return await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1
