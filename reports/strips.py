"""A claim's margin as a line of a page: interval, single seeds and 0, drawn as one small SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, EDGE = 200, 22, 8
DRAWN = 30  # seeds


def strip(margin: float | None, low: float | None, high: float | None, seeds: Sequence[float]) -> Markup:
    """Thick: the 95 % interval, open at an end where it has none; ring: the margin; ticks: single seeds; the
    upright line is 0, so what lies to the right of it meets the claim. "" without a margin.

    Every strip has its own scale: margins of different claims have different units.
    """
    if margin is None or not math.isfinite(margin):
        return Markup("")
    shown = [x for x in list(seeds)[:DRAWN] if math.isfinite(x)]
    spread = [x for x in (0.0, margin, low, high, *shown) if x is not None]
    start, end = min(spread), max(spread)
    room = (end - start) / 12 or 1.0
    start, end = start - room, end + room

    def at(x: float) -> str:
        return f"{EDGE + (x - start) / (end - start) * (WIDTH - 2 * EDGE):.1f}"

    middle = HEIGHT / 2
    left, right = (at(low) if low is not None else "0"), (at(high) if high is not None else f"{WIDTH}")
    parts = [f'<path class="zero" d="M{at(0)} 1V{HEIGHT - 1}"/>']
    if low is not None or high is not None:
        parts.append(f'<path class="span" d="M{left} {middle}H{right}"/>')
    parts += [f'<path class="seed" d="M{at(x)} {middle - 6}v12"/>' for x in shown]
    parts.append(f'<circle cx="{at(margin)}" cy="{middle}" r="4"/>')
    told = f"margin {margin:.3g} of {len(shown)} seeds, against 0"
    head = f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
    return Markup(head + "".join(parts) + "</svg>")
