# ruff: noqa: E501
"""The template of the report: one page, black on white, for a screen, a phone and paper."""

from __future__ import annotations

STYLE = """
:root{--ink:#16191d;--dim:#59616b;--line:#dfe3e8;--soft:#f6f7f9;--good:#12693a;--bad:#a3231b;--warn:#7a4b00}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header{max-width:64rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.2rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .35rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.8rem 0 .4rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.6rem 0 .3rem}
p{margin:.4rem 0 .8rem;max-width:46rem}
.dim,figcaption,small{color:var(--dim)}
.banner{background:#fff6e0;border-left:4px solid #d99a1b;color:var(--warn);padding:.7rem 1rem;margin:1.2rem 0;max-width:none}
.verdict{border:1px solid var(--line);border-left-width:6px;border-radius:4px;padding:.9rem 1.1rem;margin:1.2rem 0}
.verdict.good{border-left-color:var(--good)}.verdict.bad{border-left-color:var(--bad)}
.verdict strong{font-size:1.1rem}.verdict ul{margin:.4rem 0 0;padding-left:1.2rem}
.good{color:var(--good)}.bad{color:var(--bad)}.verdict.good,.verdict.bad{color:var(--ink)}
.verdict.good strong{color:var(--good)}.verdict.bad strong{color:var(--bad)}
nav{font-size:.9rem;margin:.8rem 0 0}nav a{color:#0b5fa5;margin-right:.9rem;white-space:nowrap;display:inline-block}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.42rem .7rem .42rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:middle}
th{color:var(--dim);font-weight:600;font-size:.82rem;white-space:nowrap}
td.n,th.n{text-align:right}td.nowrap{white-space:nowrap}
code{font:.82rem ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--dim)}
svg .title{font-weight:600;fill:var(--ink);font-size:12px}
svg.interval{width:10rem;height:1.4rem;display:block;min-width:8rem}
svg.chart{width:100%;height:auto;display:block}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1.2rem}
.grid.small{grid-template-columns:repeat(auto-fill,minmax(11rem,1fr))}
.flow{list-style:none;margin:1rem 0;padding:0;max-width:46rem}
.flow li{display:grid;grid-template-columns:4.5rem 1fr auto;gap:1rem;align-items:baseline;padding:.5rem 0 .5rem .9rem;border-left:3px solid #0b5fa5}
.flow b{font-size:1.15rem;text-align:right;font-variant-numeric:tabular-nums}
.query{border:1px solid var(--line);border-radius:4px;padding:1rem 1.1rem;margin:1rem 0;break-inside:avoid}
.query blockquote{margin:.3rem 0 .8rem;padding-left:.9rem;border-left:3px solid var(--line);font-size:.94rem}
.hits{display:grid;grid-template-columns:repeat(4,1fr);gap:1rem}
figure{margin:0}figcaption{font-size:.82rem;margin-top:.3rem}
.pair{display:flex;gap:3px;background:#000}.pair img{width:50%;min-width:0;object-fit:contain}
.hit.right .pair{outline:3px solid var(--good)}.hit.wrong .pair{outline:3px solid var(--bad)}
.hit.own .pair{outline:1px solid var(--line)}
.overlays{display:grid;grid-template-columns:repeat(4,1fr);gap:.8rem;break-inside:avoid;margin:.6rem 0 1.2rem}
.overlays img{width:100%;display:block;background:#000}
.swatch{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.5rem;vertical-align:-.05rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;font-size:.92rem}dt{color:var(--dim)}dd{margin:0}
.key span{display:inline-block;margin-right:1.2rem}
.key i{display:inline-block;width:1.1rem;height:3px;vertical-align:middle;margin-right:.4rem}
footer{max-width:64rem;margin:3rem auto 2rem;padding:1rem 1.25rem;border-top:1px solid var(--line);color:var(--dim);font-size:.85rem}
@media(max-width:40rem){.hits,.overlays{grid-template-columns:repeat(2,1fr)}.flow li{grid-template-columns:3.2rem 1fr}
.flow li small{grid-column:2}h1{font-size:1.45rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
@media print{body{font-size:10.5pt}nav{display:none}h2{break-after:avoid}.grid svg,tr{break-inside:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""

MACROS = """
{% macro estimate(row) %}
<td class="n">{{ row.value|number }}</td><td class="nowrap">[{{ row.low|number }}, {{ row.high|number }}]</td>
<td class="n">{{ row.chance|number }}</td><td>{{ interval(row)|safe }}</td>
<td class="n">{{ row.n }}</td><td class="n">{{ row.n_patients }}</td>
{% endmacro %}
{% macro estimate_head() %}
<th class="n" scope="col">value</th><th scope="col">95 % interval</th><th class="n" scope="col">chance</th>
<th scope="col">0 to 1</th><th class="n" scope="col">n</th><th class="n" scope="col">patients</th>
{% endmacro %}
"""

TOP = """
<header><h1>Velvet: what this model can do</h1>
<p class="dim">CT and report encoders: the data they were made from, their measured results, and the gate's verdict.</p>
{% if synthetic %}<p class="banner" role="note"><strong>Research use, synthetic data.</strong> The test split holds
{{ provenance.test.get('synthetic', 0) }} synthetic {% if provenance.test.get('real') %}and {{ provenance.test.real }} real {% endif %}studies. Synthetic phantoms show that the chain works; they say nothing about patients.</p>
{% else %}<p class="banner" role="note"><strong>Research use.</strong> Not a medical device; not for clinical decisions.</p>{% endif %}
{% if verdict %}
<div class="verdict {{ 'good' if verdict.passed else 'bad' }}">
<strong>{{ '✓ The gate let this model pass' if verdict.passed else '✗ The gate refused this model' }}</strong>
{% if verdict.candidate_is_champion %}<br>It is the champion already.{% elif not verdict.champion %}<br>There is no champion yet to compare it with.{% endif %}
{% if verdict.reasons %}<ul>{% for reason in verdict.reasons %}<li>{{ reason }}</li>{% endfor %}</ul>{% endif %}
{% if verdict.notes %}<ul class="dim">{% for note in verdict.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
</div>{% endif %}
<nav aria-label="Contents"><a href="#results">Results</a><a href="#gate">Gate</a><a href="#cohort">Cohort</a><a href="#checks">Checks</a>
<a href="#labels">Labels</a><a href="#training">Training</a><a href="#classification">Classification</a><a href="#retrieval">Retrieval</a>
<a href="#segmentation">Segmentation</a><a href="#groups">Groups</a><a href="#identity">Identity</a></nav>
</header><main>
"""

RESULTS = """
<h2 id="results">Results on the test split</h2>
<p>Intervals come from a bootstrap over patients. The orange tick is chance: what a model that knows nothing reaches.</p>
{% if results %}<div class="wide"><table><thead><tr><th scope="col">metric</th>{{ estimate_head() }}</tr></thead><tbody>
{% for row in results %}<tr><td>{{ row.metric|words }}</td>{{ estimate(row) }}</tr>
{% endfor %}</tbody></table></div>{% else %}<p class="dim">No protocol has run.</p>{% endif %}
<h2 id="gate">Gate</h2>
{% if verdict %}<div class="wide"><table><thead><tr><th scope="col">rule</th><th class="n" scope="col">value</th><th class="n" scope="col">minimum</th>
<th scope="col">above chance</th><th class="n" scope="col">champion</th><th class="n" scope="col">drop allowed</th><th scope="col">outcome</th></tr></thead><tbody>
{% for rule in verdict.rules %}<tr><td>{{ rule.metric|words }}</td><td class="n">{{ rule.value|number }}</td>
<td class="n">{{ rule.min|number }}</td><td>{{ 'required' if rule.above_chance else '–' }}</td><td class="n">{{ rule.champion_value|number }}</td>
<td class="n">{{ rule.max_drop|number }}</td><td class="{{ 'bad' if rule.reasons else 'good' }}">{{ rule.reasons|join('; ') if rule.reasons else '✓ holds' }}</td></tr>
{% endfor %}</tbody></table></div>{% else %}<p class="dim">The gate has not run.</p>{% endif %}
"""

COHORT = """
<h2 id="cohort">Cohort</h2>
{% if flow %}<ol class="flow">{% for step in flow %}
<li><b>{{ step.kept }}</b><span>{{ step.title }} <span class="dim">({{ step.unit }})</span></span>
<small>{{ step.aside ~ ' set aside' if step.aside else 'none set aside' }}</small></li>{% endfor %}</ol>{% endif %}
{% if splits %}<div class="wide"><table><thead><tr><th scope="col">split</th><th class="n" scope="col">patients</th><th class="n" scope="col">studies</th>
<th class="n" scope="col">with a report</th><th class="n" scope="col">image only</th><th class="n" scope="col">series</th></tr></thead><tbody>
{% for row in splits %}<tr><td>{{ row.name }}</td><td class="n">{{ row.patients }}</td><td class="n">{{ row.studies }}</td><td class="n">{{ row.paired }}</td>
<td class="n">{{ row.studies - row.paired }}</td><td class="n">{{ row.series }}</td></tr>{% endfor %}</tbody></table></div>
<p class="dim">Patients, not files, are what is divided.</p>{% endif %}
<h2 id="checks">Data checks</h2>
{% if checks %}<div class="wide"><table><thead><tr><th scope="col">check</th><th scope="col">result</th><th class="n" scope="col">checked</th><th class="n" scope="col">set aside</th>
<th class="n" scope="col">rules</th><th scope="col">what was found</th></tr></thead><tbody>
{% for row in checks %}<tr><td>{{ row.stage|words }}</td><td class="{{ 'good' if row.success else 'bad' }}">{{ '✓ passed' if row.success else '✗ failed' }}</td>
<td class="n">{{ '–' if row.checked is none else row.checked }}</td><td class="n">{{ '–' if row.refused is none else row.refused }}</td><td class="n">{{ row.passed }} of {{ row.checks }}</td>
<td>{% for item in row.found %}{{ item.title }} ({{ item.failing }}){{ '; ' if not loop.last }}{% else %}<span class="dim">nothing</span>{% endfor %}</td></tr>
{% endfor %}</tbody></table></div>{% else %}<p class="dim">No check has run.</p>{% endif %}
<h2 id="labels">Reports and labels</h2>
{% if prevalence.sections %}<h3>Sections found in {{ prevalence.reports }} reports</h3><div class="wide"><table><tbody>
{% for row in prevalence.sections %}<tr><td>{{ row.name|words }}</td><td class="n">{{ row.count }}</td><td>{{ share_bar(row.count, prevalence.reports)|safe }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if prevalence.labels %}<h3>Labels of the source</h3><div class="wide"><table><thead><tr><th scope="col">label</th><th class="n" scope="col">present</th><th class="n" scope="col">labelled</th><th scope="col">share</th>
<th class="n" scope="col">train</th><th class="n" scope="col">validation</th><th class="n" scope="col">test</th></tr></thead><tbody>
{% for row in prevalence.labels %}<tr><td>{{ row.name|words }}</td><td class="n">{{ row.total[0] }}</td><td class="n">{{ row.total[1] }}</td><td>{{ share_bar(row.total[0], row.total[1])|safe }}</td>
<td class="n">{{ row.train[0] }}</td><td class="n">{{ row.validation[0] }}</td><td class="n">{{ row.test[0] }}</td></tr>{% endfor %}</tbody></table></div>{% endif %}
{% if prevalence.findings %}<h3>Findings read from the reports</h3><div class="wide"><table><thead><tr><th scope="col">finding</th><th class="n" scope="col">present</th><th class="n" scope="col">absent</th>
<th class="n" scope="col">uncertain</th><th class="n" scope="col">not mentioned</th></tr></thead><tbody>
{% for row in prevalence.findings %}<tr><td>{{ row.name|words }}</td>{% for status in ('present', 'absent', 'uncertain', 'not_mentioned') %}<td class="n">{{ row.get(status, 0) }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
"""

MODEL = """
<h2 id="training">Training</h2>
{% if curves %}<p class="key"><span><i style="background:#0b5fa5"></i>training</span><span><i style="background:#b8480a"></i>validation</span></p>
<div class="grid">{% for chart in curves %}{{ chart|safe }}
{% endfor %}</div>{% else %}<p class="dim">No curves.</p>{% endif %}
<h2 id="classification">Classification</h2>
<p>Zero-shot: prompts against the volume, nothing fitted. Linear probe: logistic regression on frozen features. Every threshold comes from validation.</p>
{% if labels %}<div class="wide"><table><thead><tr><th scope="col">label</th><th colspan="3" scope="colgroup">zero-shot AUROC</th><th colspan="3" scope="colgroup">linear probe AUROC</th></tr></thead><tbody>
{% for row in labels %}<tr><td>{{ row.name|words }}</td>{% for found in (row.zero_shot, row.linear_probe) %}
{% if found %}<td class="n">{{ found.value|number }}</td><td class="nowrap">[{{ found.low|number(2) }}, {{ found.high|number(2) }}]</td><td>{{ interval(found)|safe }}</td>
{% else %}<td class="dim" colspan="3">not scored</td>{% endif %}{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% for protocol, reasons in left_out.items() %}<details><summary class="dim">{{ protocol }}: {{ reasons|length }} label{{ '' if reasons|length == 1 else 's' }} left out</summary><ul>
{% for name, reason in reasons|dictsort %}<li>{{ name|words }}: {{ reason }}</li>{% endfor %}</ul></details>{% endfor %}
{% for group in rocs %}<h3>{{ group.title }}: ROC curves</h3><div class="grid small">{% for chart in group.charts %}{{ chart|safe }}
{% endfor %}</div>{% endfor %}
"""

EXAMPLES = """
<h2 id="retrieval">Retrieval</h2>
{% if retrieval_metrics %}<p>{{ retrieval_metrics.pool }} test studies are each other's gallery; {{ retrieval_metrics.studies_with_an_equal_report }}
have a report that another study has too, and each of those counts as right. Examples run from the best-ranked query to the worst.</p>{% endif %}
{% for query in retrieval %}<section class="query"><small>Report of <code>{{ query.study }}</code> · right volume at rank {{ query.rank|number(0) }}</small>
<blockquote>{{ query.text }}</blockquote><div class="hits">
<figure class="hit own"><div class="pair">{% for slice in query.own %}<img src="{{ slice.src }}" alt="{{ slice.view }} slice of the report's own volume">{% endfor %}</div><figcaption>its own volume</figcaption></figure>
{% for hit in query.found %}<figure class="hit {{ 'right' if hit.right else 'wrong' }}"><div class="pair">
{% for slice in hit.slices %}<img src="{{ slice.src }}" alt="{{ slice.view }} slice of retrieved volume {{ loop.index }}">{% endfor %}</div>
<figcaption><b class="{{ 'good' if hit.right else 'bad' }}">{{ '✓ right' if hit.right else '✗ wrong' }}</b> · retrieved {{ ('first', 'second', 'third')[loop.index0] }}</figcaption></figure>{% endfor %}
</div></section>{% else %}<p class="dim">No examples.</p>{% endfor %}
<h2 id="segmentation">Segmentation</h2>
{% if segmentation %}<p>Encoder: {{ segmentation.metrics.get('init', 'unknown') }} weights, fine-tuned with a decoder. The orange tick is the Dice of calling every voxel that class.</p>
<div class="wide"><table><thead><tr><th scope="col">class</th><th class="n" scope="col">Dice</th><th scope="col">95 % interval</th><th scope="col">0 to 1</th><th class="n" scope="col">NSD at {{ segmentation.metrics.get('tolerance_mm', 2) }} mm</th><th class="n" scope="col">HD95, mm</th><th class="n" scope="col">n</th></tr></thead><tbody>
{% for row in segmentation.classes if row.dice is defined %}<tr><td><span class="swatch" style="background:{{ row.colour }}"></span>{{ row.name|words }}</td><td class="n">{{ row.dice.value|number }}</td>
<td class="nowrap">[{{ row.dice.low|number }}, {{ row.dice.high|number }}]</td><td>{{ interval(row.dice)|safe }}</td><td class="n">{{ row.nsd.value|number }}</td><td class="n">{{ row.hd95.value|number(1) }}</td><td class="n">{{ row.dice.n }}</td></tr>
{% endfor %}</tbody></table></div>
{% for example in segmentation.examples %}<h3><code>{{ example.study }}</code></h3><div class="overlays">{% for view in example.views %}
<figure><img src="{{ view.target }}" alt="{{ view.view }} slice with the true labels"><figcaption>{{ view.view }}, truth</figcaption></figure>
<figure><img src="{{ view.predicted }}" alt="{{ view.view }} slice with the predicted labels"><figcaption>{{ view.view }}, predicted</figcaption></figure>{% endfor %}</div>{% endfor %}
{% else %}<p class="dim">Not evaluated.</p>{% endif %}
<h2 id="groups">Results by group</h2>
{% for table in slices %}<h3>{{ table.protocol }}: {{ table.metric }}</h3><div class="wide"><table><thead><tr><th scope="col">group</th><th scope="col"></th>{{ estimate_head() }}</tr></thead><tbody>
{% for row in table.rows %}<tr><td class="dim">{{ row.group }}</td><td>{{ row['value_name'] }}</td>{{ estimate(row) }}</tr>{% endfor %}</tbody></table></div>
{% else %}<p class="dim">No group has enough patients.</p>{% endfor %}
<h2 id="identity">Identity</h2>
<dl>{% if verdict %}<dt>Model (SHA-256 of its weights)</dt><dd><code>{{ verdict.candidate }}</code></dd>
<dt>Champion</dt><dd><code>{{ verdict.champion or 'none' }}</code></dd><dt>Test data</dt><dd><code>{{ verdict.test_data_hash or 'unknown' }}</code></dd>{% endif %}
<dt>Parameters in force</dt><dd><code>{{ params_hash }}</code></dd>
{% if contract %}<dt>Preprocessing</dt><dd>{{ contract.orientation }}, {{ contract.spacing_mm|join(' × ') }} mm, {{ contract['size']|join(' × ') }} voxels, {{ contract.hu_window|join(' to ') }} HU, {{ contract.view|words }}</dd>
<dt>Training data</dt><dd><code>{{ contract.data_hash or 'unknown' }}</code></dd>{% endif %}</dl>
</main><footer>Written by the stage <code>gate</code> from the artifacts of this run. Studies go by keyed ids; report text is de-identified. For research; not for clinical use.</footer>
"""

PAGE = (
    MACROS.strip()
    + """
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Velvet: evaluation report</title><style>"""
    + STYLE
    + "</style></head><body>"
    + TOP
    + RESULTS
    + COHORT
    + MODEL
    + EXAMPLES
    + "</body></html>\n"
)
