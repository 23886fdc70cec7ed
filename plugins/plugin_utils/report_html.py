# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one file of HTML that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.stillpoint.criu.plugins.plugin_utils import report_charts as charts
from ansible_collections.stillpoint.criu.plugins.plugin_utils.report import COLUMNS, Row
from ansible_collections.stillpoint.criu.plugins.plugin_utils.report_charts import escape
from ansible_collections.stillpoint.criu.plugins.plugin_utils.report_history import Run, embedded

BARS = 15
"""How many containers a chart shows."""

STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1b1f24;--dim:#59636e;--edge:#d1d9e0;--bar:#2f6fbb;--bad:#b3261e;
--other:#b35900}
@media(prefers-color-scheme:dark){:root{--back:#14181d;--text:#e6e9ed;--dim:#9aa4af;--edge:#363e48;--bar:#6aa5e8;
--bad:#ff8a80;--other:#f0a35c}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:90rem;background:var(--back);color:var(--text);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}
p{color:var(--dim);margin:.2rem 0 1rem}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin-bottom:1rem}
.tiles div{border:1px solid var(--edge);border-radius:.5rem;padding:.5rem .9rem;flex:1 1 7rem}
.tiles b{display:block;font-size:1.35rem}
.tiles .bad,.bad td.result{color:var(--bad);font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
figure{margin:0;border:1px solid var(--edge);border-radius:.5rem;padding:.8rem;min-width:0}
figcaption{font-weight:600;margin-bottom:.5rem}
svg{display:block;overflow:hidden}
svg text{fill:var(--text);font-size:12px}
svg .value{text-anchor:end;paint-order:stroke;stroke:var(--back);stroke-width:6px}
svg .tick{fill:var(--dim);paint-order:stroke;stroke:var(--back);stroke-width:4px}
svg .grid{stroke:var(--edge)}
svg .bar{fill:var(--bar)}
svg .series{stroke-width:2}
svg .s0{stroke:var(--bar);fill:var(--bar)}
svg .s1{stroke:var(--other);fill:var(--other)}
.keys,.ends{display:flex;justify-content:space-between;gap:1rem;color:var(--dim);font-size:.8rem}
.keys{justify-content:start}
.key::before{content:"\\25CF ";color:var(--bar)}
.key.s1::before{color:var(--other)}
.spark{width:6rem;height:1.2rem}
.spark polyline{fill:none;stroke:var(--bar);stroke-width:1.5;vector-effect:non-scaling-stroke}
table{border-collapse:collapse;width:100%;margin-top:1rem}
.wide{overflow-x:auto}
th,td{text-align:start;padding:.35rem .6rem;border-bottom:1px solid var(--edge);vertical-align:top;
unicode-bidi:isolate}
td.container,td.to,td.reason{overflow-wrap:anywhere}
td.container{min-width:9rem}
td.to,td.reason{font-size:.85rem}
td.to:not(:empty),td.reason:not(:empty){min-width:12rem}
th{color:var(--dim);font-weight:600;white-space:nowrap}
td.number,th.number{text-align:end;white-space:nowrap;font-variant-numeric:tabular-nums}
td.reason{white-space:pre-line}
@media(max-width:45rem){thead{display:none}table,tbody,tr,td{display:block}
tr{border:1px solid var(--edge);border-radius:.5rem;margin-bottom:.6rem;padding:.3rem 0}
td,td.number{border:0;display:flex;gap:.8rem;text-align:start;white-space:normal;overflow-wrap:anywhere;min-width:0!important}
td.reason{white-space:pre-line}
td:empty{display:none}td::before{content:attr(data-label);color:var(--dim);flex:0 0 6.5rem}}
"""


def page(listed: Sequence[Row], time: datetime, runs: Sequence[Run]) -> str:
    """Return the report.

    Args:
        listed: what this run tells.
        time: when it ended, in UTC.
        runs: the figures of all runs that saved something, oldest first.
    """
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC")
    hosts = len({row.host for row in listed})
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            # Whatever a name or an error holds: nothing is run, nothing is loaded.
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Checkpoints {when}</title>",
            f"<style>{STYLE}</style>\n</head>\n<body>",
            f"<h1>Checkpoints</h1><p>{when}, {_count(hosts, 'host')}, {_count(len(listed), 'container')}</p>",
            _tiles(listed),
            '<div class="charts">',
            *_charts(listed, runs),
            "</div>",
            _table(listed, runs),
            embedded(runs),
            "</body>\n</html>\n",
        )
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms"


def _bytes(value: float) -> str:
    return bytes_to_human(int(value))


def _tiles(listed: Sequence[Row]) -> str:
    saved = [row for row in listed if row.saved]
    failed = sum(row.failed for row in listed)
    tiles = [("saved", str(len(saved)), ""), ("failed", str(failed), "bad" if failed else "")]
    if any(row.restored for row in listed):
        tiles.append(("restored", str(sum(row.restored for row in listed)), ""))
    frozen = [row.frozen_ms for row in saved if row.frozen_ms is not None]
    if frozen:
        tiles.append(("frozen at most", _ms(max(frozen)), ""))
    if saved:
        tiles.append(("size of all", _bytes(sum(row.size_bytes or 0 for row in saved)), ""))
    shown = (f'<div class="{style}"><b>{escape(value)}</b>{escape(name)}</div>' for name, value, style in tiles)
    return f'<div class="tiles">{"".join(shown)}</div>'


def _charts(listed: Sequence[Row], runs: Sequence[Run]) -> list[str]:
    saved = [row for row in listed if row.saved]
    drawn = []
    for title, field, show in (("Frozen", "frozen_ms", _ms), ("Size", "size_bytes", _bytes)):
        known = [(f"{row.host} {row.container}", getattr(row, field)) for row in saved]
        named = sorted(((name, value) for name, value in known if value is not None), key=lambda pair: -pair[1])
        if named:
            more = f" (the largest {BARS} of {len(named)})" if len(named) > BARS else ""
            drawn.append(charts.bars(title + more, named[:BARS], show))
    if len(runs) > 1:
        moments = [run.time.strftime("%Y-%m-%d %H:%M") for run in runs]
        frozen = [[ms for ms, _size in run.figures.values() if ms is not None] or [0.0] for run in runs]
        sizes = [float(sum(size for _ms, size in run.figures.values())) for run in runs]
        series = [("longest", [max(values) for values in frozen]), ("median", [median(values) for values in frozen])]
        drawn.append(charts.lines("Frozen, over time", moments, series, _ms))
        drawn.append(charts.lines("Size of all, over time", moments, [("size", sizes)], _bytes))
    return drawn


def _table(listed: Sequence[Row], runs: Sequence[Run]) -> str:
    heads = [*COLUMNS, "reason", *(["frozen over time"] if len(runs) > 1 else [])]
    numbers = ("frozen ms", "size")
    head = "".join(f'<th class="{"number" if name in numbers else ""}">{name}</th>' for name in heads)
    body = []
    for row in sorted(listed, key=lambda row: not row.failed):  # otherwise in the order of the run
        cells = [*map(escape, row.texts()), escape(row.reason.strip())]
        if len(runs) > 1:
            cells.append(_spark(row, runs))
        marked = (
            f'<td class="{"number" if name in numbers else name}" data-label="{name}">{cell}</td>'
            for name, cell in zip(heads, cells)
        )
        body.append(f"<tr{' class=bad' if row.failed else ''}>{''.join(marked)}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(body) + "\n</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _spark(row: Row, runs: Sequence[Run]) -> str:
    past = [run.figures.get((row.host, row.container), (None, 0))[0] for run in runs]
    known = [value for value in past if value is not None]
    return charts.spark(known, f"from {_ms(min(known))} to {_ms(max(known))}") if len(known) > 1 else ""
