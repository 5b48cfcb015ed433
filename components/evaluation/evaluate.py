"""Score the encoder by one named protocol on the test split.

python -m components.evaluation.evaluate --protocol zero_shot
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.base.config import Config
from components.base.step import Step, StepContext


def params_of(protocol: str) -> type[Config]:
    """The parameters of the protocol called `protocol`."""
    from components.evaluation.protocols import PROTOCOLS

    kind: type[Config] = PROTOCOLS.get(protocol).Params
    return kind


def run(params: Config, context: StepContext) -> Mapping[str, Any]:
    """Evaluate into `artifacts/evaluate/PROTOCOL/`; the metrics say what data and model they are of."""
    from components.downstream.inputs import DownstreamInputs
    from components.evaluation.protocols import PROTOCOLS

    inputs = DownstreamInputs.of(context)
    metrics: Mapping[str, Any] = PROTOCOLS.get(str(context.item)).evaluate(params, inputs, context)
    about = {"test": inputs.provenance(("test",)), "train": inputs.provenance(("train",))}
    if about["test"].get("synthetic"):
        context.log.warning(
            "%s: the test split holds synthetic studies; say so with every number", context.label
        )
    return {
        **metrics,
        "provenance": {**about, "synthetic": bool(about["test"].get("synthetic"))},
        "model_sha256": inputs.model_hash(),
        "test_data_hash": inputs.data_hash("test"),
    }


STEP = Step("evaluate", params_of, run, item="protocol")

if __name__ == "__main__":
    raise SystemExit(STEP.main())
