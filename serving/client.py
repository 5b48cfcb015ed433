"""Talk to a served encoder: `VelvetClient(url).embed_volume(path)`, or `python -m serving.client --help`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError, ServiceError, VelvetError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

DEFAULT_URL = "http://127.0.0.1:3000"
SUFFIXES = (".nii.gz", ".nii", ".npy")


class VelvetClient:
    """A connection to a service. A busy one is asked again, as its Retry-After says."""

    def __init__(
        self, url: str = DEFAULT_URL, *, key: str | None = None, timeout_s: float = 120.0, retries: int = 3
    ) -> None:
        """`key` is the service's API key, if it has one."""
        import httpx

        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.retries = retries
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> VelvetClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def embed_volume(self, path: Path | str, *, spacing_mm: Sequence[float] | None = None) -> Vectors:
        """The unit vector [P] of a scan: .nii.gz, .nii, or .npy in HU (then with `spacing_mm` along X, Y, Z)."""
        import numpy as np

        answer = self._upload("/embed_volume", Path(path), spacing_mm, {})
        return np.array(answer["embedding"], dtype=np.float32)

    def embed_text(self, texts: Sequence[str]) -> Vectors:
        """The unit vectors [N, P] of reports or sentences."""
        import numpy as np

        return np.array(
            self._post("/embed_text", json={"reports": list(texts)})["embeddings"], dtype=np.float32
        )

    def zero_shot(
        self, path: Path | str, prompts: Sequence[str], *, spacing_mm: Sequence[float] | None = None
    ) -> dict[str, float]:
        """Prompt -> softmax score of a scan, in the order of the prompts."""
        form = {"prompts": json.dumps(list(prompts))}
        answer = self._upload("/zero_shot", Path(path), spacing_mm, form)
        return dict(zip(prompts, answer["scores"], strict=True))

    def info(self) -> dict[str, Any]:
        """The model's description, contract, card, hash and seal."""
        return self._post("/info", json={})

    def _upload(
        self, route: str, path: Path, spacing_mm: Sequence[float] | None, form: dict[str, str]
    ) -> dict[str, Any]:
        suffix = next((item for item in SUFFIXES if path.name.lower().endswith(item)), None)
        if suffix is None or not path.is_file():
            raise InputError(
                "the scan does not exist" if suffix else "the scan is neither NIfTI nor NPY",
                rule="client.scan",
                fix=f"give a path that ends in {', '.join(SUFFIXES)}",
            )
        if spacing_mm is not None:
            form = {**form, "spacing_mm": ",".join(map(str, spacing_mm))}
        data = path.read_bytes()  # the file's own name stays here: it may identify a patient
        return self._post(
            route, files={"volume": (f"scan{suffix}", data, "application/octet-stream")}, data=form
        )

    def _post(self, route: str, **body: Any) -> dict[str, Any]:
        import httpx

        for attempt in range(self.retries + 1):
            try:
                answer = self._http.post(route, **body)
            except httpx.TransportError as error:
                raise ServiceError(
                    f"the service at {self._http.base_url} does not answer ({type(error).__name__})",
                    rule="client.connection",
                    fix="start it with `make serve`, or give its address with --url",
                ) from None
            if answer.status_code not in (429, 503) or attempt == self.retries:
                break
            time.sleep(min(float(answer.headers.get("retry-after", "1")), 10.0))
        return _read(answer)


def _read(answer: Any) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"error": f"the service answered {answer.status_code} without JSON"}
    if answer.status_code == 200:
        return body
    kind = ServiceError if answer.status_code >= 500 or answer.status_code == 429 else InputError
    raise kind(
        str(body.get("error", f"the service answered {answer.status_code}")),
        rule=str(body.get("rule", "client.status")),
        fix=str(body.get("fix", "see the service's log")),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: prints JSON."""
    parser = argparse.ArgumentParser(prog="serving.client", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", help="the service's API key")
    commands = parser.add_subparsers(dest="command", required=True)
    volume = commands.add_parser("embed-volume", help="the unit vector of a scan")
    volume.add_argument("path", type=Path)
    text = commands.add_parser("embed-text", help="the unit vectors of texts")
    text.add_argument("texts", nargs="+")
    score = commands.add_parser("zero-shot", help="scores of a scan against prompts")
    score.add_argument("path", type=Path)
    score.add_argument("prompts", nargs="+")
    for command in (volume, score):
        command.add_argument("--spacing-mm", type=float, nargs=3, metavar=("X", "Y", "Z"), help="for .npy")
    commands.add_parser("info", help="what is served")
    args = parser.parse_args(argv)
    try:
        with VelvetClient(args.url, key=args.key) as client:
            print(json.dumps(_run(client, args), indent=2))
    except VelvetError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


def _run(client: VelvetClient, args: argparse.Namespace) -> Any:
    if args.command == "embed-volume":
        return client.embed_volume(args.path, spacing_mm=args.spacing_mm).tolist()
    if args.command == "embed-text":
        return client.embed_text(args.texts).tolist()
    if args.command == "zero-shot":
        return client.zero_shot(args.path, args.prompts, spacing_mm=args.spacing_mm)
    return client.info()


if __name__ == "__main__":
    raise SystemExit(main())
