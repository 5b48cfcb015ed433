"""The embedded cohort: drawn chest CTs with reports, masks, labels and invented identifiers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.cohort.phantom.sampling import PhantomParams
from components.cohort.sources import SOURCES
from components.cohort.study import Mask, RawSeries, Source

if TYPE_CHECKING:
    from components.cohort.phantom.spec import PhantomStudy


@dataclass(frozen=True)
class PhantomSeries(RawSeries):
    """A series of the phantom cohort; drawn when it is written."""

    spec: PhantomStudy = field(kw_only=True)

    def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
        """Draw the study, write its volume and its `organs` and `findings` label maps."""
        from components.cohort.phantom.nifti import write_masks, write_nifti

        drawn = write_nifti(self.spec, volume)
        return [Mask(*item) for item in write_masks(self.spec, drawn, masks, stem)]


@SOURCES.register("phantom")
class PhantomSource(Source):
    """Yields the studies of `components.cohort.phantom.cohort`; reads no file."""

    Params = PhantomParams

    def series(self) -> Iterator[PhantomSeries]:
        """Every study as one series, patients in order, oldest study first."""
        from components.cohort.phantom import cohort, write_report

        assert isinstance(self.params, PhantomParams)
        for study in cohort(self.params, self.seed):
            report, spans = write_report(study) if study.with_report else (None, [])
            yield PhantomSeries(
                patient=study.person.mrn,
                study=study.visit.accession,
                series=study.visit.series_uid,
                provenance="synthetic",
                report=report,
                sex=study.person.sex,
                age_years=study.age_years,
                labels=study.labels,
                identities=study.identities,
                gold_spans=tuple(spans),
                spec=study,
            )
