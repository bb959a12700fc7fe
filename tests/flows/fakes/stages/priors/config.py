from stages.common import FakeConfig, FakeResult

VERSION = 1
NEEDS = ("pose",)
PriorsResult = FakeResult


class PriorsConfig(FakeConfig):
    pass
