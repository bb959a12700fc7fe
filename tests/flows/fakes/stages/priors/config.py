from quoin.stages.common import FakeConfig, FakeResult

VERSION = 1
NEEDS = ("pose",)
PriorsResult = FakeResult


class PriorsConfig(FakeConfig):
    stereo_edge_px: int = 0  # where there are two workers, cluster/priors.py asks whether there is stereo to share
