from pipeline.config import StageResult
from stages.common import FakeConfig

VERSION = 1


class TrainConfig(FakeConfig):
    pass


class BlockResult(StageResult):
    block: str
    seconds: float
    device: str


class TrainResult(StageResult):
    blocks: list[BlockResult]
