"""Merge what the layers found: overlapping spans become one, the surest gives kind, layer and rule."""

from __future__ import annotations

from components.reports.deid.span import Span

_LAYER_RANK = {"known": 0, "patterns": 1, "names": 2, "places": 3, "suspects": 4, "statistical": 5}
_JOINS = frozenset({"", " ", ", ", ",", "-", "'"})
_EDGE = " \n,;:|."


def _rank(span: Span) -> tuple[float, int, int, str, str]:
    return (-span.score, _LAYER_RANK.get(span.layer, 9), span.start - span.end, span.kind, span.rule)


def merge(view: str, spans: list[Span]) -> list[Span]:
    """Disjoint spans in order; neighbours of one kind joined by a space, comma or hyphen become one."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda item: (item.start, item.end, _rank(item))):
        trimmed = _trim(view, span)
        if trimmed is None:
            continue
        last = merged[-1] if merged else None
        if last is not None and trimmed.start < last.end:
            merged[-1] = min(last, trimmed, key=_rank)._replace(
                start=last.start, end=max(last.end, trimmed.end)
            )
        elif last is not None and trimmed.kind == last.kind and view[last.end : trimmed.start] in _JOINS:
            merged[-1] = min(last, trimmed, key=_rank)._replace(start=last.start, end=trimmed.end)
        else:
            merged.append(trimmed)
    return merged


def _trim(view: str, span: Span) -> Span | None:
    start, end = span.start, span.end
    if span.rule.startswith("id.") and start and (view[start - 1] in "-/" or view[start] in "-/"):
        start = _code_start(view, start)
    while start < end and view[start] in _EDGE:
        start += 1
    while end > start and view[end - 1] in _EDGE:
        end -= 1
    if start == end:
        return None
    return span if (start, end) == (span.start, span.end) else span._replace(start=start, end=end)


def _code_start(view: str, start: int) -> int:
    """Where the letters before a code's hyphen or slash begin (`IALCH-4897905`); `start` where there are none."""
    begin = start
    while begin and start - begin < 10 and (view[begin - 1].isalpha() or view[begin - 1] in "-/"):
        begin -= 1
    whole = begin == 0 or not (view[begin - 1].isalnum() or view[begin - 1] == "_")
    return begin if whole and view[begin].isalpha() else start
