"""Settings of the pose stage under their former names."""

import pytest

from quoin.pipeline.core.config import validate_config
from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.config import PoseConfig


@pytest.mark.parametrize(("old", "new"), [("given", "known_poses"), ("neighbours", "neighbors")])
def test_a_former_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    assert new in PoseConfig.model_fields
    with pytest.raises(QuoinError, match=new):
        validate_config(PoseConfig, {old: None})
