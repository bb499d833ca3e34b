"""Line charts as SVG: small, sharp, and readable by a browser alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 16, 48
# Distinct for colour-blind eyes, too (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
TICKS = 5


def line_chart(x: Sequence[float], lines: Mapping[str, Sequence[float]], x_title: str, y_title: str) -> str:
    """A chart with a line for each name, all over the same x.

    Args:
        x: increasing values.
        lines: values of each line, as many as of x.
        x_title, y_title: what the axes show.
    """
    highest = max(max(values) for values in lines.values())
    lowest = min(0.0, *(min(values) for values in lines.values()))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(a: float, b: float) -> tuple[float, float]:
        return (
            LEFT + width * (a - x[0]) / (x[-1] - x[0]),
            TOP + height * (1 - (b - lowest) / (highest - lowest)),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for tick in range(TICKS + 1):
        a = x[0] + (x[-1] - x[0]) * tick / TICKS
        b = lowest + (highest - lowest) * tick / TICKS
        at_x, at_y = place(a, lowest)[0], place(x[0], b)[1]
        parts += [
            f'<path d="M{LEFT} {at_y:.1f}h{width}" stroke="#ddd"/>',
            f'<text x="{LEFT - 6}" y="{at_y + 4:.1f}" text-anchor="end">{b:.3g}</text>',
            f'<text x="{at_x:.1f}" y="{TOP + height + 18}" text-anchor="middle">{a:.3g}</text>',
        ]
    for number, (name, values) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in zip(x, values, strict=True))
        line_y = TOP + 14 + 18 * number
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<path d="M{WIDTH - RIGHT + 10} {line_y - 4}h18" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{WIDTH - RIGHT + 34}" y="{line_y}">{escape(name)}</text>',
        ]
    middle = TOP + height / 2
    parts += [
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_title)}</text>',
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
