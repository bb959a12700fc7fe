"""Parts of rays put together front to back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quoin.tools.render.composite import composite


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1), st.floats(0, 1)), max_size=12), st.randoms())
def test_parts_in_any_order_give_what_one_ray_after_the_other_does(parts, random):
    parts = [(ray, index, value, opacity) for index, (ray, value, opacity) in enumerate(parts)]
    random.shuffle(parts)
    expected, through = np.zeros(4), np.ones(4)
    for ray, _, value, opacity in sorted(parts, key=lambda p: p[1]):
        expected[ray] += through[ray] * value
        through[ray] *= 1 - opacity
    columns = [np.array([p[i] for p in parts]) for i in range(4)]
    ray, begin = columns[0].astype(np.int64), columns[1].astype(np.float64)
    values, opacity = columns[2].astype(np.float32)[:, None], columns[3].astype(np.float32)
    got, covered = composite(ray, begin, values, opacity, 4)
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(covered, 1 - through, atol=1e-5)
