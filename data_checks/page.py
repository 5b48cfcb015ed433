"""What a check leaves behind: result.json for machines and one self-contained page for people.

The page loads nothing: no script, no font, no image, no address. It shows counts and keyed ids, never a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_checks.suite import Verdict

KEYED = re.compile(r"(?:pat|stu|ser)_[0-9a-f]{16}")
SHOWN = 50

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title><style>
:root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--bad:#c6302b;--dim:#777}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin-top:2rem} .dim{color:var(--dim)}
.tiles{display:flex;gap:.8rem;flex-wrap:wrap;margin:1.2rem 0}
.tile{border:1px solid var(--line);border-radius:.5rem;padding:.6rem 1rem;min-width:7rem}
.tile b{display:block;font-size:1.5rem} table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid var(--line);padding:.45rem .6rem;text-align:left;vertical-align:top}
th{font-weight:600;color:var(--dim);font-size:.85rem} td.n{text-align:right;font-variant-numeric:tabular-nums}
.good{color:var(--good);font-weight:600} .bad{color:var(--bad);font-weight:600}
code{font:12.5px ui-monospace,monospace;overflow-wrap:anywhere} details{margin:.2rem 0}
</style></head><body>
<h1>{{ title }}</h1>
<p class="{{ 'good' if result.success else 'bad' }}">{{ verdict }}</p>
<div class="tiles">{% for name, value in tiles %}<div class="tile"><b>{{ value }}</b>{{ name }}</div>{% endfor %}</div>
{% for heading, rows in groups if rows %}<h2>{{ heading }}</h2>
<table><tr><th>result<th>what must hold<th>rule<th style="text-align:right">failing</tr>
{% for item in rows %}<tr><td class="{{ 'good' if item.passed else 'bad' }}">{{ 'pass' if item.passed else 'FAIL' }}
<td>{{ item.title }}{% if item['keys'] %}<details><summary class="dim">which</summary>
{% for key in item['keys'][:shown] %}<code>{{ key }}</code> {% endfor %}
{% if item['keys']|length > shown %}
<span class="dim">and {{ item['keys']|length - shown }} more in result.json</span>{% endif %}
</details>{% endif %}<td><code>{{ item.rule }}</code><br><span class="dim">{{ item.expectation }}</span>
<td class="n">{% if not item.cohort %}{{ item.failing }}{% elif item.observed is not none %}
found {{ '%g' % item.observed }}{% endif %}</tr>
{% endfor %}</table>{% endfor %}
<p class="dim">Great Expectations {{ version }}. Rows are named by keyed ids; values are not kept.</p>
</body></html>
"""


def shown_key(value: Any, row: int) -> str:
    """A keyed id as it is; anything else could be a raw identifier and becomes `row_N`."""
    return value if isinstance(value, str) and KEYED.fullmatch(value) else f"row_{row}"


def result_of(verdicts: Sequence[Verdict], keys: Sequence[str], limit: float) -> dict[str, Any]:
    """The machine-readable result; `keys` are the shown keys of the rows that were checked."""
    failed = {row for verdict in verdicts if not verdict.cohort for row in verdict.rows}
    checks = [
        {
            "rule": verdict.rule,
            "title": verdict.title,
            "expectation": verdict.expectation,
            "cohort": verdict.cohort,
            "passed": verdict.passed,
            "failing": len(verdict.rows),
            "keys": sorted({keys[row] for row in verdict.rows}),
            "observed": None if verdict.observed is None else round(verdict.observed, 4),
        }
        for verdict in verdicts
    ]
    cohort = all(verdict.passed for verdict in verdicts if verdict.cohort)
    return {
        "success": bool(keys) and cohort and len(failed) < len(keys) and len(failed) <= limit * len(keys),
        "checked": len(keys),
        "refused": len(failed),
        "max_quarantined_fraction": limit,
        "checks": checks,
    }


def publish(folder: Path, title: str, unit: str, result: Mapping[str, Any]) -> None:
    """Write result.json and index.html into `folder`."""
    import great_expectations
    from jinja2 import Environment, StrictUndefined

    from components.base.files import write_json, write_text

    write_json(folder / "result.json", result)
    checks = result["checks"]
    passed = sum(item["passed"] for item in checks)
    verdict = (
        "Every check passed." if passed == len(checks) else f"{len(checks) - passed} checks found something."
    )
    verdict += " The data go on." if result["success"] else " The stage failed."
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    tiles = [
        (unit, result["checked"]),
        ("set aside", result["refused"]),
        ("checks", len(checks)),
        ("passed", passed),
    ]
    groups = [
        ("The whole table", [item for item in checks if item["cohort"]]),
        (f"Each of the {unit}", [item for item in checks if not item["cohort"]]),
    ]
    page = template.render(
        title=title,
        result=result,
        verdict=verdict,
        tiles=tiles,
        groups=groups,
        shown=SHOWN,
        version=great_expectations.__version__,
    )
    write_text(folder / "index.html", page)
