from quoin.stages.common import behave

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.storage.run import stage


class ReportResult(StageResult):
    path: str


def write_html_report(run, config, report):
    behave("report", run, config, report)
    (run.path / "report.html").write_text(f"known: {sorted(run.record.manifests)}")
    return ReportResult(path=str(run.path / "report.html"))


run = stage("report", needs=("fuse",), version=1, result=ReportResult)(write_html_report)
