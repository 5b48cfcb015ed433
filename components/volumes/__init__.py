"""Volumes: safe reading, integrity, the preprocessing contract and the chunked store."""
