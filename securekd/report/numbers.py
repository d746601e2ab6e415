"""Numbers for readers. Whatever bounds from above is rounded up, whatever bounds from below is rounded down."""

import math

_STEPS = (("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40))


def percent(share: float) -> str:
    """A share of one as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def percent_up(share: float) -> str:
    """Like `percent`, rounded up: for a ceiling."""
    return f"{_up(100 * share, 1):.1f}%"


def percent_range(low: float, high: float) -> str:
    """An interval of shares, rounded outwards."""
    return f"{_down(100 * low, 1):.1f}–{_up(100 * high, 1):.1f}%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, signed."""
    rounded = round(100 * difference, 1)
    sign = "+" if rounded > 0 else "−" if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.1f} points"


def area(auc: float) -> str:
    """An AUC with three decimals."""
    return f"{auc:.3f}"


def area_up(auc: float) -> str:
    """An AUC that bounds from above, with four decimals."""
    return f"{_up(auc, 4):.4f}"


def area_range(low: float, high: float) -> str:
    """An interval of AUCs, rounded outwards."""
    return interval(low, high, 3)


def interval(low: float, high: float, decimals: int) -> str:
    """An interval, rounded outwards."""
    return f"{_down(low, decimals):.{decimals}f}–{_up(high, decimals):.{decimals}f}"


def epsilon(value: float) -> str:
    """A proven ε, rounded up: two decimals below 100, whole numbers above."""
    if value < 100:
        return f"{_up(value, 2):.2f}"
    return f"{math.ceil(value):,}" if value < 1e9 else f"{value:.3g}"


def epsilon_lower(value: float) -> str:
    """A lower bound on ε, rounded down to two decimals."""
    return f"{_down(value, 2):.2f}"


def delta(value: float) -> str:
    """A δ, short: 1e-5."""
    mantissa, exponent = f"{value:.3e}".split("e")
    if int(exponent) > -4:
        return f"{value:.4g}"
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def count(value: float) -> str:
    """A count with thousands apart."""
    return f"{value:,.0f}"


def size(octets: float) -> str:
    """Bytes in the largest binary unit that leaves at least one."""
    unit, scale = "B", 1
    for larger, step in _STEPS:
        if octets >= step:
            unit, scale = larger, step
    return f"{octets:,.0f} B" if scale == 1 else f"{octets / scale:,.1f} {unit}"


def duration(seconds: float) -> str:
    """A time: milliseconds below a tenth of a second, then seconds, minutes, hours."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def plural(number: int, one: str, many: str | None = None) -> str:
    """A count with its noun, in the plural (an s where none is given) unless there is one of it."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _up(value: float, decimals: int) -> float:
    # Ten digits more than shown are taken as exact, so that 0.1 + 0.2 does not become 0.4.
    scale = 10.0**decimals
    return math.ceil(round(value * scale, 9)) / scale


def _down(value: float, decimals: int) -> float:
    scale = 10.0**decimals
    return math.floor(round(value * scale, 9)) / scale
