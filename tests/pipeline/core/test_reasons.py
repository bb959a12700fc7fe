import pickle

from quoin.pipeline.core.reasons import Reason, RejectedFileError, Rejection


def test_a_reason_is_stored_by_its_name_and_shown_by_its_text():
    assert [Reason(member.value) for member in Reason] == list(Reason)
    assert all(member.value == member.name.lower() and member.text for member in Reason)
    rejection = Rejection.from_columns("too_small", "64 x 48 pixels")
    assert rejection == Rejection(Reason.TOO_SMALL, "64 x 48 pixels")
    assert str(rejection) == "too small: 64 x 48 pixels"
    assert str(Rejection(Reason.NEAR_DUPLICATE)) == "near duplicate"
    assert Rejection.from_columns("", "") is None


def test_the_error_of_a_file_keeps_its_rejection_between_processes():
    error = RejectedFileError(Reason.TRUNCATED, where="a.jpg", hint="copy it again")
    loaded = pickle.loads(pickle.dumps(error))
    assert (str(loaded), loaded.rejection) == ("truncated ('a.jpg'). Copy it again.", Rejection(Reason.TRUNCATED))
