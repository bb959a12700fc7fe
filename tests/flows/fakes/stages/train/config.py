import pydantic
from quoin.stages.common import FakeConfig

from quoin.pipeline.core.config import StageResult

VERSION = 1


class TrainConfig(FakeConfig):
    model_config = pydantic.ConfigDict(extra="ignore")  # the parts of a method are for the real one


class BlockResult(StageResult):
    block: str
    seconds: float
    device: str
    value: int = 0


class TrainResult(StageResult):
    blocks: list[BlockResult]
    failed_blocks: dict[str, str] = {}
