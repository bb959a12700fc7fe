"""One folder for each stage, in the order of the data: ingest, pose, partition, priors, train, fuse, report.

Each holds ``stage.py`` (it loads, computes and saves), ``config.py`` (its configuration and result, light to import)
and files of pure numerics. Stages know no ray and no prefect, and never import one another.
"""
