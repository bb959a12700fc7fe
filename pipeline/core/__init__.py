"""Errors, configuration, events, cancellation, formatting, threads."""
