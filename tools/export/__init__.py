"""Export: a run's surface and cameras in the files other programs read."""
