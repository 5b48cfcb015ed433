"""A seeded cohort of drawn chest CTs with reports, masks, labels and invented identifiers.

    from components.cohort.phantom import PhantomParams, cohort, render, write_report

    for study in cohort(PhantomParams(num_patients=4), seed=7):
        volume, (text, spans) = render(study), write_report(study)

Everything is drawn from a `PhantomStudy`, which is small and picklable; any study can be made alone.
"""

from components.cohort.phantom.dicom import write_dicom_series
from components.cohort.phantom.nifti import write_masks, write_nifti
from components.cohort.phantom.render import Rendered, render
from components.cohort.phantom.report import write_report
from components.cohort.phantom.sampling import HEADER_STYLES, PhantomParams, cohort, patient_studies
from components.cohort.phantom.spec import FINDING_VALUES, LABELS, ORGAN_VALUES, Finding, PhantomStudy

__all__ = [
    "FINDING_VALUES",
    "HEADER_STYLES",
    "LABELS",
    "ORGAN_VALUES",
    "Finding",
    "PhantomParams",
    "PhantomStudy",
    "Rendered",
    "cohort",
    "patient_studies",
    "render",
    "write_dicom_series",
    "write_masks",
    "write_nifti",
    "write_report",
]
