"""Numbers, times and names as people read them, one form each for the terminal, the dashboard and the report."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

NOT_MEASURED = "not measured"
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]+:/{1,2})([^\s'\"]+)")  # pathlib makes s3:/ of s3://
_NOT_A_PORT = re.compile(r":(?!\d+$)")
_SECRET_PARAMETER = re.compile(r"([?&][^=&\s]*(?:sig|token|secret|passw|credential|key)[^=&\s]*=)[^&\s'\"]+", re.I)
_UNITS = {"px": "px", "db": "dB", "deg": "°", "m": "m", "m2": "m²", "mb": "MB", "hours": "h", "percent": "%"}


def format_number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant figures, thousands grouped, no exponent between 1e-4 and 1e9."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e9 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_count(value: float | None) -> str:
    """A whole number, thousands grouped."""
    return NOT_MEASURED if value is None else f"{int(value):,}"


def format_duration(seconds: float | None) -> str:
    """``0.4 s``, ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_MEASURED
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_bytes(n_bytes: float | None) -> str:
    """Bytes in the binary unit that fits: ``1.4 GiB``."""
    if n_bytes is None or not math.isfinite(n_bytes):
        return NOT_MEASURED
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1000 or unit == "TiB":
            break
        value /= 1024
    return f"{format_number(value, 3)} {unit}"


def format_percent(share: float | None) -> str:
    """A share in [0, 1] in percent."""
    return NOT_MEASURED if share is None or not math.isfinite(share) else f"{format_number(100 * share, 3)} %"


def key_label(key: str) -> str:
    """``n_points`` → ``points``, ``median_reprojection_px`` → ``median reprojection``."""
    words = key.removeprefix("n_").split("_")
    if len(words) > 1 and words[-1] in (*_UNITS, "bytes", "share", "fraction", "seconds", "s"):
        words = words[:-1]
        if words[-1] == "per":  # rays_per_s keeps its "per s"
            words = key.removeprefix("n_").split("_")
    return " ".join(words)


def format_quantity(key: str, value: Any, length: str = "m") -> str:
    """``value`` with the unit that the end of its ``key`` names (``_px``, ``_bytes``, ``seconds``).

    ``length`` is the unit of lengths in the world.
    """
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return escape_invisible(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(format_quantity(key, v, length) for v in value)
    unit_suffix = key.rsplit("_", 1)[-1]
    if unit_suffix == "bytes":
        return format_bytes(value)
    if unit_suffix in ("share", "fraction"):
        return format_percent(value)
    if unit_suffix in ("seconds", "s") and "_per_" not in key:
        return format_duration(value)
    text = format_count(value) if isinstance(value, int) else format_number(value)
    unit = _UNITS.get(unit_suffix, "")
    unit = unit.replace("m", length) if unit_suffix in ("m", "m2") else unit
    return f"{text} {unit}" if unit and text != NOT_MEASURED else text


def escape_invisible(text: str) -> str:
    r"""``text`` with control and direction-changing characters as ``\n`` or ``\u202e``: no name disguises itself."""

    def escape(char: str) -> str:
        hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        joiner = char in "\u200c\u200d"  # scripts need these within words
        return char.encode("unicode_escape").decode("ascii") if hidden and not joiner else char

    return "".join(map(escape, text))


def redact_urls(text: str) -> str:
    """``text`` in which URLs have ``***`` in place of user names, passwords and signatures."""

    def hide(match: re.Match[str]) -> str:
        authority, (_, at, rest) = match[2].partition("/")[0], match[2].rpartition("@")
        has_user = at and ("@" in authority or _NOT_A_PORT.search(authority))
        return f"{match[1]}***@{rest}" if has_user else match[0]

    return _SECRET_PARAMETER.sub(r"\1***", _URL.sub(hide, text))


def printable(text: str) -> str:
    """``text`` as one line for terminals and logs: nothing in it steers a terminal, and its URLs hold no secrets."""
    return escape_invisible(redact_urls(text))


def timecode(seconds: float) -> str:
    """A time in a clip as players show it: ``0:07``, ``12:30``, ``1:02:03``; whole seconds, rounded down."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def timespans(times_s: Iterable[tuple[float, float]]) -> str:
    """Spans of time in a clip, given in seconds: ``0:07–0:09, 0:30``."""
    texts = ((timecode(begin), timecode(end)) for begin, end in times_s)
    return ", ".join(begin if begin == end else f"{begin}–{end}" for begin, end in texts)
