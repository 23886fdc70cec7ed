# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Charts as SVG for the report. Places are percentages, so that they fit a phone as well as a screen."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

BAR_PX = 36
PLOT_PX = 160


def escape(text: object) -> str:
    """Return a text as HTML and XML want it, also in attributes; what would not be seen is shown as such."""
    shown = (c if c.isprintable() or c in "\n\t\xa0" else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return html.escape("".join(shown))


def bars(title: str, values: Sequence[tuple[str, float]], show: Callable[[float], str]) -> str:
    """Return a chart with a horizontal bar for each name, as long as its value, in the order given.

    Args:
        title: what the values are.
        values: name and value of each; values are not negative.
        show: writes a value with its unit.
    """
    most = max((value for _name, value in values), default=0) or 1
    parts = []
    for number, (name, value) in enumerate(values):
        top, label, shown = number * BAR_PX, escape(name), escape(show(value))
        parts.append(
            f"<g><title>{label}: {shown}</title>"
            f'<text x="0" y="{top + 14}">{label}</text>'
            f'<text class="value" x="100%" y="{top + 14}">{shown}</text>'
            f'<rect class="bar" x="0" y="{top + 19}" width="{max(100 * value / most, 0.3):.2f}%" height="9"/></g>'
        )
    return _figure(title, len(values) * BAR_PX, "".join(parts))


def lines(
    title: str, moments: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], show: Callable[[float], str]
) -> str:
    """Return a chart of values over time, with a line for each series.

    Args:
        title: what the values are.
        moments: when, as text, evenly spaced.
        series: name and values of each line, one value for each moment.
        show: writes a value with its unit.
    """
    most = max((value for _name, values in series for value in values), default=0) or 1
    parts = []
    for part in (1.0, 0.5, 0.0):
        height = _height(part)
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{height}" y2="{height}"/>')
        parts.append(f'<text class="tick" x="0" y="{height - 3}">{escape(show(most * part))}</text>')
    for number, (name, values) in enumerate(series):
        # Right of the words on the lines.
        points = [
            (14 + 0.86 * _across(index, len(values)), _height(value / most)) for index, value in enumerate(values)
        ]
        for (x1, y1), (x2, y2) in zip(points, points[1:]):
            parts.append(f'<line class="series s{number}" x1="{x1:.2f}%" y1="{y1}" x2="{x2:.2f}%" y2="{y2}"/>')
        for (x, y), value, moment in zip(points, values, moments):
            parts.append(
                f'<circle class="s{number}" cx="{x:.2f}%" cy="{y}" r="3">'
                f"<title>{escape(moment)}, {escape(name)}: {escape(show(value))}</title></circle>"
            )
    legend = "".join(f'<span class="key s{number}">{escape(name)}</span>' for number, (name, _v) in enumerate(series))
    ends = f"<span>{escape(moments[0])}</span><span>{escape(moments[-1])}</span>" if moments else ""
    return _figure(title, PLOT_PX, "".join(parts), f'<div class="ends">{ends}</div><div class="keys">{legend}</div>')


def spark(values: Sequence[float], shown: str) -> str:
    """Return a small line of values over time, for a cell of a table; shown tells it in words."""
    most = max(values, default=0) or 1
    points = " ".join(f"{_across(i, len(values)):.1f},{18 - 16 * value / most:.1f}" for i, value in enumerate(values))
    return (
        f'<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label="{escape(shown)}">'
        f'<title>{escape(shown)}</title><polyline points="{points}"/></svg>'
    )


def _across(index: int, count: int) -> float:
    """Return how far to the right the value of that index lies, in percent."""
    return 2 + 96 * index / max(count - 1, 1)


def _height(part: float) -> float:
    """Return where in a plot a value lies that is so large a part of the largest one."""
    return round(PLOT_PX - 6 - (PLOT_PX - 24) * part, 1)


def _figure(title: str, height: int, content: str, below: str = "") -> str:
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg class="chart" width="100%" height="{height}" role="img" aria-label="{escape(title)}">{content}</svg>'
        f"{below}</figure>"
    )
