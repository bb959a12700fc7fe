from quoin.stages.common import FakeConfig


class PartitionConfig(FakeConfig):
    blocks: int = 2
