from quoin.stages.common import behave


def fuse(run, config, report, hands):
    return behave("fuse", run, config, report)
