from quoin.stages.common import behave


def find_poses(run, config, report, hands):
    return behave("pose", run, config, report)
