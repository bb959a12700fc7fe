from pipeline.run import stage
from stages.common import FakeResult, behave


@stage("report", needs=("fuse",), version=1, result=FakeResult)
def run(run, config, report):
    return behave("report", run, config, report)
