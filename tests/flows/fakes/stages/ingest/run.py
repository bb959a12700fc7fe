from pipeline.run import stage
from stages.common import FakeResult, behave


@stage("ingest", needs=(), version=1, result=FakeResult)
def run(run, config, report):
    return behave("ingest", run, config, report)
