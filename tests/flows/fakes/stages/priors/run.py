from pipeline.run import stage
from stages.common import FakeResult, behave


@stage("priors", needs=("pose",), version=1, result=FakeResult)
def run(run, config, report, device):
    return behave("priors", run, config, report)
