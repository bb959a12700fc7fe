"""The type checker that guards every annotated function of pipeline and stages while the tests run.

Shapes and dtypes of arrays are checked to the letter (jaxtyping). A number may also be a numpy number, and an int does
for a float: Python and numpy treat them so, and so does our code. (beartype knows no StringIO as TextIO.)
"""

from __future__ import annotations

from typing import TextIO

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

check = beartype(
    conf=BeartypeConf(
        hint_overrides=FrozenDict(
            {
                float: float | int | np.floating | np.integer,
                int: int | np.integer,
                bool: bool | np.bool_,
                TextIO: object,
            }
        )
    )
)
