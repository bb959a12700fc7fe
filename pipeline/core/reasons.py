"""Why a file or a photo is not used: one ``Reason`` for each cause, with the text that people read.

Code compares members and tables store their names ("near_duplicate"); texts may change at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from quoin.pipeline.core.errors import QuoinError


class Reason(StrEnum):
    """Cause for which a file gives no photo (ingest) or a photo has no camera pose (pose)."""

    text: str

    def __new__(cls, name: str, text: str) -> Reason:
        member = str.__new__(cls, name)
        member._value_, member.text = name, text  # the way of enum to give members attributes
        return member

    NOT_A_PHOTO = "not_a_photo", "not a photo"
    MASK = "mask", "mask"
    DEPTH_MAP = "depth_map", "depth map"
    VIDEO = "video", "video"
    LIVE_PHOTO = "live_photo", "live photo"
    RAW = "raw", "camera raw"
    ANIMATED = "animated", "animated image"
    LINK = "link", "link"
    UNREADABLE = "unreadable", "unreadable"
    UNREADABLE_FOLDER = "unreadable_folder", "unreadable folder"
    TRUNCATED = "truncated", "truncated"
    TOO_LARGE = "too_large", "too large"
    TOO_SMALL = "too_small", "too small"
    BLANK = "blank", "blank"
    BLURRED = "blurred", "blurred"
    PANORAMA = "panorama", "panorama"
    MASKED = "masked", "masked"
    DUPLICATE = "duplicate", "duplicate"
    NEAR_DUPLICATE = "near_duplicate", "near duplicate"

    FEW_FEATURES = "few_features", "few features"
    NO_MATCHES = "no_matches", "no other photo shows the same things"
    FEW_MATCHES = "few_matches", "few matches"
    MATCHES_UNREGISTERED = "matches_unregistered", "it matches only photos that are not registered either"
    NOT_REGISTERED = "not_registered", "COLMAP could not register it"
    OTHER_COMPONENT = "other_component", "it belongs to another group of photos"
    FEW_POINTS = "few_points", "its pose rests on too few points"
    FAR_OUTSIDE = "far_outside", "its pose lies far outside the scene"
    LARGE_ERROR = "large_error", "its reprojection error is too large"
    BAD_INTRINSICS = "bad_intrinsics", "its camera came out impossible"
    WRONG_GIVEN_POSE = "wrong_given_pose", "its given camera contradicts what it shows"
    NO_GIVEN_POSE = "no_given_pose", "it has no given camera"


@dataclass(frozen=True)
class Rejection:
    """Why one file or photo is not used, with ``detail`` about it, such as numbers or the name of another file."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.text}: {self.detail}" if self.detail else self.reason.text

    @classmethod
    def from_columns(cls, reason: str, detail: str) -> Rejection | None:
        """The rejection that two columns of a table hold; None where ``reason`` is empty."""
        return cls(Reason(reason), detail) if reason else None  # type: ignore[call-arg, arg-type]


class RejectedFileError(QuoinError):
    """A photo or a video that cannot be read, with its ``rejection`` for the photo table."""

    def __init__(self, reason: Reason, detail: str = "", *, where: object = None, hint: str | None = None) -> None:
        self.rejection = Rejection(reason, detail)
        super().__init__(str(self.rejection), where=where, hint=hint)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.rejection, self.where, self.hint)


def _rebuild(rejection: Rejection, where: str | None, hint: str | None) -> RejectedFileError:
    return RejectedFileError(rejection.reason, rejection.detail, where=where, hint=hint)
