from quoin.stages.common import FakeConfig


class ReportConfig(FakeConfig):
    pass
