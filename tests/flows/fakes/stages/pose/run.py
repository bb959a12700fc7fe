from pipeline.run import stage
from stages.common import FakeResult, behave


@stage("pose", needs=("ingest",), version=1, result=FakeResult)
def run(run, config, report):
    return behave("pose", run, config, report)
