"""Where work runs: inline or on Ray actors."""
