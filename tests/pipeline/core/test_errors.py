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


ATTACK = "\x1b]0;pwned\x07\x1b[2J\r\nerror: none\u202egpj.exe"


def test_no_part_of_it_steers_a_terminal():
    for error in (QuoinError(ATTACK), QuoinError("x", where=ATTACK), QuoinError("x", where="y", hint=ATTACK)):
        assert not set(str(error)) & set("\x1b\x07\r\n\u202e")


def test_a_password_in_a_url_is_not_repeated():
    for url in ("s3://KEY:SECRET@bucket/run", "s3:/KEY:SEC/RET@bucket/run", "https://u:SECRET@host:80/x"):
        assert "RET" not in str(QuoinError(f"No such thing as {url}", where=url, hint=f"look at {url}"))
    assert "SECRET" not in str(QuoinError("x", where="az://box/run?sv=1&sig=SECRET&se=2"))
    kept = "http://127.0.0.1:4200/api and s3://bucket/photos@2x/a.jpg"
    assert kept in str(QuoinError(kept))
