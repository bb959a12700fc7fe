from quoin.stages.common import FakeConfig, FakeResult

VERSION = 1
NEEDS = ("ingest",)
PoseResult = FakeResult


class PoseConfig(FakeConfig):
    known_poses: str | None = None
