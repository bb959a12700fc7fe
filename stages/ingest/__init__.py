"""Ingest: the table of photos, with the facts of each, and the files that are not used, with the reason."""
