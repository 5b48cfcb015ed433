"""Reports: de-identification, sections, sentences, findings."""
