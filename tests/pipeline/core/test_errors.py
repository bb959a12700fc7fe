"""A QuoinError is one sentence and survives the journey between processes."""

from __future__ import annotations

import pickle

from quoin.pipeline.core.errors import QuoinError


class Narrower(QuoinError):
    pass


def test_it_says_what_where_and_what_to_do():
    assert (
        str(QuoinError("No photos", where="a folder", hint="name another")) == "No photos ('a folder'). Name another."
    )
    assert str(QuoinError("No photos")) == "No photos."


def test_a_name_with_a_newline_stays_on_one_line():
    assert "\n" not in str(QuoinError("Cannot read", where="a\nb.jpg"))


def test_it_keeps_its_parts_and_kind_when_pickled():
    back = pickle.loads(pickle.dumps(Narrower("What", where="here", hint="this")))
    assert type(back) is Narrower
    assert (back.what, back.where, back.hint) == ("What", "here", "this")
    assert str(back) == "What ('here'). This."
