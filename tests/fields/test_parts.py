"""Parts that come in kinds are found by lying in their folder."""

import sys
from typing import get_args

import pytest

from quoin.fields.encoding.encoding import EncodingConfig
from quoin.fields.parts import PartConfig, any_kind_of
from quoin.fields.renderer.renderer import RendererConfig
from quoin.fields.sampler.sampler import SamplerConfig


@pytest.mark.parametrize(
    ("base", "package", "kinds"),
    [
        (EncodingConfig, "quoin.fields.encoding", {"hash", "frequency", "fourier", "grid"}),
        (RendererConfig, "quoin.fields.renderer", {"neus", "laplace", "density", "surface"}),
        (
            SamplerConfig,
            "quoin.fields.sampler",
            {"guided", "importance", "hierarchical", "bounded", "window", "trace", "march"},
        ),
    ],
)
def test_all_kinds_are_found_and_build_what_they_configure(base, package, kinds):
    configs = get_args(get_args(any_kind_of(base, package))[0])
    assert {config.model_fields["kind"].default for config in configs} == kinds
    for config in configs:
        assert config().build() is not None


def test_a_new_kind_is_one_new_file(tmp_path, monkeypatch):
    (tmp_path / "kinds_of_tests").mkdir()
    (tmp_path / "kinds_of_tests" / "__init__.py").touch()
    for kind in ("first", "second"):
        (tmp_path / "kinds_of_tests" / f"{kind}.py").write_text(
            "from typing import Literal\nfrom tests_base import Base\n"
            f"class Config(Base):\n    kind: Literal['{kind}'] = '{kind}'\n"
        )

    class Base(PartConfig):
        pass

    module = type(sys)("tests_base")
    module.Base = Base
    monkeypatch.setitem(sys.modules, "tests_base", module)
    monkeypatch.syspath_prepend(tmp_path)
    configs = get_args(get_args(any_kind_of(Base, "kinds_of_tests"))[0])
    assert [config.model_fields["kind"].default for config in configs] == ["first", "second"]
