from stages.common import FakeConfig


class PriorsConfig(FakeConfig):
    pass
