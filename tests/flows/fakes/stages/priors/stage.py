from quoin.stages.common import behave


def find_depths(run, config, report, device):
    return behave("priors", run, config, report)
