"""Retrieval on the test split in both directions, and volume to volume by shared labels.

One report and one volume a study. Equal reports are all right answers, for either direction. A cross-modal query
(a report) is not an item of its gallery (volumes); volume to volume leaves out the query and its patient's other
studies. Ties are broken at random, in expectation, exactly: constant embeddings score chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError, IntegrityError
from components.base.files import missing_input, read_json, write_table, write_text
from components.evaluation import statistics as st
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, by_slice

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs, StudyRow

DIRECTIONS = ("report_to_volume", "volume_to_report")
Array = npt.NDArray[np.float64]


class RetrievalParams(ProtocolParams):
    """The cut-offs K of R@K, and the labels that say which volumes are alike."""

    ks: tuple[int, ...] = Field(min_length=1)
    labels: Literal["gold", "report"]
    neighbours: int = Field(ge=1)


@dataclass(frozen=True)
class Ranked:
    """For every query: wrong items above the best right one, right and wrong ones tied with it, and the pool."""

    better: npt.NDArray[np.int64]
    tied_right: npt.NDArray[np.int64]
    tied_wrong: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.int64]

    def recall(self, k: int) -> Array:
        """P(a right item among the first k) of each query."""
        triples = zip(self.better, self.tied_right, self.tied_wrong, strict=True)
        return np.array([st.first_hit_recall(int(b), int(r), int(w), k) for b, r, w in triples])

    def chance(self, k: int, rows: npt.NDArray[np.intp] | None = None) -> float:
        """The mean over queries (or those of `rows`) of the same in a random order."""
        chosen = np.arange(len(self.right)) if rows is None else rows
        pools = zip(self.right[chosen], self.wrong[chosen], strict=True)
        return float(np.mean([st.first_hit_recall(0, int(r), int(w), k) for r, w in pools]))

    def rank(self) -> Array:
        """The expected rank, from 1, of each query's first right item."""
        triples = zip(self.better, self.tied_right, self.tied_wrong, strict=True)
        return np.array([st.first_hit_rank(int(b), int(r), int(w)) for b, r, w in triples])


def rank(similarity: Array, right: npt.NDArray[np.bool_]) -> Ranked:
    """Rank every row's items; `right` [Q, G] says which items answer which query (at least one each)."""
    rounded = np.round(similarity, st.SCORE_DECIMALS)
    best = np.where(right, rounded, -np.inf).max(1, keepdims=True)
    tied = rounded == best
    return Ranked(
        better=((rounded > best) & ~right).sum(1),
        tied_right=(tied & right).sum(1),
        tied_wrong=(tied & ~right).sum(1),
        right=right.sum(1),
        wrong=(~right).sum(1),
    )


def label_overlap(vectors: npt.NDArray[np.int8]) -> Array:
    """The Jaccard overlap [N, N] of the studies' sets of present labels; two empty sets overlap fully."""
    present = (vectors == 1).astype(np.float64)
    both = present @ present.T
    either = present.sum(1)[:, None] + present.sum(1)[None] - both
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)


def _gallery(
    inputs: DownstreamInputs,
) -> tuple[list[StudyRow], Array, Array, list[str]]:
    """The test studies of the gallery that `finetune --task retrieval` wrote; another model's is refused."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = inputs.artifact("finetune", "retrieval")
    about = read_json(folder / "gallery.json")
    if not (folder / "gallery.safetensors").exists():
        raise missing_input(folder / "gallery.safetensors")
    try:
        arrays = load_file(folder / "gallery.safetensors")
        rows = [at for at, study in enumerate(about["studies"]) if study["split"] == "test"]
        studies = [inputs.split()[about["studies"][at]["study_key"]] for at in rows]
        volume, report = (arrays[name].astype(np.float64)[rows] for name in ("volume", "report"))
        hashes = [about["report_sha256"][at] for at in rows]
    except (SafetensorError, KeyError, IndexError, TypeError):
        raise IntegrityError(
            "the gallery cannot be read", rule="retrieval.gallery", fix="run finetune --task retrieval again"
        ) from None
    if about["model_sha256"] != inputs.model_hash():
        raise IntegrityError(
            "the gallery was made with another model",
            rule="retrieval.model",
            fix="run finetune --task retrieval again",
        )
    if len(studies) < 2:
        raise InputError(
            f"the test split has {len(studies)} paired studies, retrieval needs 2",
            rule="retrieval.pool",
            fix="use more paired studies, or a larger test fraction",
        )
    return studies, volume, report, hashes


def _direction(params: RetrievalParams, ranked: Ranked, patients: list[str]) -> dict[str, Any]:
    estimate = params.bootstrap().estimate
    pool = len(patients)
    metrics = {
        f"recall_at_{k}": estimate(
            st.weighted_mean(ranked.recall(k)), patients, chance=ranked.chance(k), unit="recall"
        ).as_dict()
        for k in params.ks
        if k < pool
    }
    pools = [(int(r), int(w)) for r, w in zip(ranked.right, ranked.wrong, strict=True)]
    metrics["median_rank"] = estimate(
        st.weighted_median(ranked.rank()), patients, chance=st.chance_median_rank(pools), unit="rank"
    ).as_dict()
    return metrics


def _neighbours(
    params: RetrievalParams, inputs: DownstreamInputs, studies: list[StudyRow], volume: Array
) -> dict[str, Any] | None:
    """Mean Jaccard overlap of labels with the nearest volumes of other patients; chance: with all of them."""
    labels = inputs.labels(params.labels)
    if not labels:
        return None
    keys = [row.study_key for row in studies]
    vectors = np.array([[known.get(key, 0) for known in labels.values()] for key in keys], dtype=np.int8)
    overlap, similar = label_overlap(vectors), np.round(volume @ volume.T, st.SCORE_DECIMALS)
    patients = [row.patient_key for row in studies]
    allowed = np.array([[one != other for other in patients] for one in patients])
    values, chances = np.full(len(keys), np.nan), np.full(len(keys), np.nan)
    for query in range(len(keys)):
        items = np.flatnonzero(allowed[query])
        if len(items) > params.neighbours:
            values[query] = _top_mean(similar[query, items], overlap[query, items], params.neighbours)
            chances[query] = overlap[query, items].mean()
    if not np.isfinite(values).any():
        return None
    return (
        params.bootstrap()
        .estimate(st.weighted_mean(values), patients, chance=float(np.nanmean(chances)), unit="jaccard")
        .as_dict()
    )


def _top_mean(score: Array, value: Array, k: int) -> float:
    """The expected mean `value` of the k best-scored items when ties are broken at random."""
    edge = np.sort(score)[::-1][k - 1]
    above, tied = score > edge, score == edge
    return float((value[above].sum() + (k - above.sum()) * value[tied].mean()) / k)


@PROTOCOLS.register("retrieval")
class Retrieval:
    """The protocol `retrieval`."""

    Params: ClassVar[type[Config]] = RetrievalParams

    @staticmethod
    def evaluate(
        params: RetrievalParams, inputs: DownstreamInputs, context: StepContext
    ) -> Mapping[str, Any]:
        """Write `predictions.parquet` and `recall.csv`; R@K, median rank and their chance levels."""
        studies, volume, report, hashes = _gallery(inputs)
        same = np.array([[one == other for other in hashes] for one in hashes])
        patients = [row.patient_key for row in studies]
        similarity = report @ volume.T
        sides = dict(zip(DIRECTIONS, (similarity, similarity.T), strict=True))
        ranked = {name: rank(values, same) for name, values in sides.items()}
        metrics: dict[str, Any] = {name: _direction(params, ranked[name], patients) for name in DIRECTIONS}
        mean = {k: np.mean([ranked[name].recall(k) for name in DIRECTIONS], axis=0) for k in params.ks}
        for k in (k for k in params.ks if k < len(studies)):
            chance = float(np.mean([ranked[name].chance(k) for name in DIRECTIONS]))
            metrics[f"recall_at_{k}"] = (
                params.bootstrap()
                .estimate(st.weighted_mean(mean[k]), patients, chance=chance, unit="recall")
                .as_dict()
            )
        middle = min((k for k in params.ks if k >= 5), default=params.ks[-1])
        metrics["slices"] = by_slice(
            params, studies, lambda rows: _slice(params, ranked, mean[middle], patients, rows, middle)
        )
        neighbours = _neighbours(params, inputs, studies, volume)
        if neighbours:
            metrics["volume_to_volume"] = {f"label_jaccard_at_{params.neighbours}": neighbours}
        _write(context, studies, sides, ranked, same)
        duplicated = sum(int(count) > 1 for count in same.sum(1))
        return {
            **metrics,
            "pool": len(studies),
            "studies_with_an_equal_report": duplicated,
            "slice_metric": f"recall_at_{middle}",
            "rule": "equal reports are all right; ties are broken at random in expectation; gallery = test split",
        }


def _slice(
    params: RetrievalParams,
    ranked: dict[str, Ranked],
    recall: Array,
    patients: list[str],
    rows: npt.NDArray[np.intp],
    k: int,
) -> dict[str, Any]:
    """R@k, mean of both directions, of the queries of a slice against the whole gallery."""
    chance = float(np.mean([ranked[name].chance(k, rows) for name in DIRECTIONS]))
    of = [patients[at] for at in rows]
    metric = st.weighted_mean(recall[rows])
    return params.bootstrap().estimate(metric, of, chance=chance, unit="recall").as_dict()


def _write(
    context: StepContext,
    studies: list[StudyRow],
    sides: dict[str, Array],
    ranked: dict[str, Ranked],
    same: npt.NDArray[np.bool_],
) -> None:
    import pyarrow as pa

    rows, lines = [], ["direction,k,recall,chance"]
    for name in DIRECTIONS:
        order = np.argsort(-np.round(sides[name], st.SCORE_DECIMALS), axis=1, kind="stable")[:, :3]
        ranks = ranked[name].rank()
        for at, row in enumerate(studies):
            rows.append(
                {
                    "study_key": row.study_key,
                    "patient_key": row.patient_key,
                    "direction": name,
                    "rank": float(ranks[at]),
                    "top": [studies[item].study_key for item in order[at]],
                    "top_right": [bool(same[at, item]) for item in order[at]],
                }
            )
        for k in range(1, len(studies) + 1):
            lines.append(f"{name},{k},{ranked[name].recall(k).mean():.6f},{ranked[name].chance(k):.6f}")
    text = pa.string()
    fields = [("study_key", text), ("patient_key", text), ("direction", text), ("rank", pa.float64())]
    schema = pa.schema([*fields, ("top", pa.list_(text)), ("top_right", pa.list_(pa.bool_()))])
    write_table(context.out / "predictions.parquet", pa.Table.from_pylist(rows, schema=schema))
    write_text(context.out / "recall.csv", "\n".join(lines) + "\n")
