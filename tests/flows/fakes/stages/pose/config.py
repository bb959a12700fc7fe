from stages.common import FakeConfig


class PoseConfig(FakeConfig):
    given: str | None = None
