from stages.common import FakeConfig


class FuseConfig(FakeConfig):
    pass
