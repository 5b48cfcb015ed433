"""DICOM: headers read within limits, series assembled from their slices, HU from their pixels."""
