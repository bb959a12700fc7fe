"""Ingest: which files are photos, what is known of each, and why the others are not used."""
