"""The pipeline as a Prefect flow: artifacts, dashboard, submission, server. The only place that imports prefect."""
