from pipeline.run import stage
from stages.common import FakeResult, behave


@stage("fuse", needs=("train",), version=1, result=FakeResult)
def run(run, config, report):
    return behave("fuse", run, config, report)
