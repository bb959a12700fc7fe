"""Export: a run's surface and cameras in file formats of other programs."""
