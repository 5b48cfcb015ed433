"""De-identification of report texts: layers that find PHI, a lexicon that protects, a merge, an action."""
