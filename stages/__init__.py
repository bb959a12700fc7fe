"""One room per stage, in the order of the data: ingest pose partition train fuse evaluate export report (and demo).

A stage package holds ``config.py`` (its configuration and result, light to import), ``run.py`` (the stage function) and
small files of pure numerics. Stages know no ray and no prefect, and never import one another.
"""
