from quoin.stages.common import FakeConfig, FakeResult

VERSION = 1
FuseResult = FakeResult


class FuseConfig(FakeConfig):
    pass
