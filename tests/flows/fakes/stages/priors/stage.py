from quoin.stages.common import behave


def estimate_depths(run, config, report, device):
    return behave("priors", run, config, report)
