from quoin.stages.common import FakeConfig


class IngestConfig(FakeConfig):
    masks: str = "auto"
