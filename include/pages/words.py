"""Numbers and moments in words, and charts as coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def lasting(seconds: float) -> str:
    """How long something took.

    >>> [lasting(n) for n in (0.04, 1.25, 9.96, 59.7, 75, 3600, 90061)]
    ['0.0 s', '1.2 s', '10 s', '1 min', '1 min 15 s', '1 h', '1 d 1 h']
    """
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts = []
    for size, unit in (*UNITS, (1, "s")):
        if whole >= size:
            parts.append(f"{whole // size} {unit}")
            whole %= size
        elif parts:
            break
    return " ".join(parts[:2])


def distance(at: datetime, now: datetime) -> str:
    """How far a moment is from now, in its largest unit.

    >>> noon = datetime(2026, 3, 1, 12)
    >>> [distance(datetime(2026, 3, d, h), noon) for d, h in ((1, 12), (1, 11), (1, 14), (3, 12))]
    ['just now', '1 h ago', 'in 2 h', 'in 2 d']
    """
    seconds = (at - now).total_seconds()
    for size, unit in UNITS:
        if abs(seconds) >= size:
            told = f"{int(abs(seconds) // size)} {unit}"
            return f"in {told}" if seconds > 0 else f"{told} ago"
    return "in a moment" if seconds > 0 else "just now"


def utc(at: datetime) -> str:
    """A moment, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def count(number: int | None) -> str:
    """A number with its thousands apart.

    >>> count(1234567), count(None)
    ('1,234,567', '–')
    """
    return "–" if number is None else f"{number:,}"


def heights(values: Sequence[float | None], full: int) -> list[int]:
    """Whole heights of bars; the largest is full, what is nothing or little is 2.

    >>> heights([0, 5, None, 10], 40), heights([], 40)
    ([2, 20, 2, 40], [])
    """
    top = max((value for value in values if value), default=1)
    return [max(2, round((value or 0) / top * full)) for value in values]


def bars(values: Sequence[float | None], bad: Sequence[bool] = ()) -> dict[str, str]:
    """A small chart, 20 high and 6 wide a value: paths of SVG, by what their bars tell.

    Args:
        values: The oldest first; None for no bar.
        bad: Which of them did not do well; empty for none.

    Returns:
        The paths of those that are ``bad``, of the ``last``, and of those ``before``.

    >>> bars([5, None, 10, 10], [True, False, False, False])
    {'bad': 'M0 20v-10h5v10z', 'before': 'M12 20v-20h5v20z', 'last': 'M18 20v-20h5v20z'}
    """
    known = [number for number, value in enumerate(values) if value is not None]
    tall, found = heights(values, 20), dict[str, str]()
    for number in known:
        is_bad = bool(bad) and bad[number]
        kind = "bad" if is_bad else "last" if number == known[-1] else "before"
        path = f"M{6 * number} 20v-{tall[number]}h5v{tall[number]}z"
        found[kind] = found.get(kind, "") + path
    return found
