"""Small charts as SVG text and slices as PNG data addresses: the same input gives the same bytes.

Charts are drawn by hand rather than by a plotting library: they use the page's own font and colours, scale to a
phone, weigh a few hundred bytes, and hold no version, date or id of a library.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BLUE, ORANGE, GREY, LIGHT = "#0b5fa5", "#b8480a", "#6b7280", "#e2e5e9"
CLASS_COLOURS = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999933", "#882255", "#44aa99",
    "#ddcc77", "#aa4499", "#88ccee", "#661100", "#117733", "#bbbbbb",
)  # fmt: skip
MIN_PIXELS = 160
TITLE_CHARACTERS = 22


def _svg(width: int, height: int, label: str, body: Sequence[str], kind: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(body)}</svg>"
    )


def _at(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    points = f'x1="{_at(x1)}" y1="{_at(y1)}" x2="{_at(x2)}" y2="{_at(y2)}"'
    return f'<line {points} stroke="{colour}"{more}/>'


def _text(x: float, y: float, value: str, anchor: str = "middle") -> str:
    return f'<text x="{_at(x)}" y="{_at(y)}" text-anchor="{anchor}">{escape(value)}</text>'


def interval(estimate: Mapping[str, Any]) -> str:
    """A line from 0 to 1 with the interval, the value and the chance level (a tick); "" for other scales."""
    values = [estimate.get(name) for name in ("low", "high", "value")]
    if any(value is None or not 0 <= value <= 1 for value in values):
        return ""
    low, high, value = (4 + 152 * float(item) for item in values if item is not None)
    body = [_line(4, 11, 156, 11, LIGHT, ' stroke-width="2"')]
    body.append(_line(low, 11, high, 11, BLUE, ' stroke-width="3" stroke-linecap="round"'))
    chance = estimate.get("chance")
    if chance is not None and 0 <= chance <= 1:
        body.append(_line(4 + 152 * chance, 3, 4 + 152 * chance, 19, ORANGE, ' stroke-width="2"'))
    body.append(f'<circle cx="{_at(value)}" cy="11" r="4.5" fill="{BLUE}"/>')
    words = f"{estimate['value']:.3f}, interval {estimate['low']:.3f} to {estimate['high']:.3f}"
    words += "" if chance is None else f", chance {chance:.3f}"
    return _svg(160, 22, words, body, "interval")


def curve(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One objective's training and validation values by step; the axis spans what is drawn."""
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return ""
    left, right, top, bottom = 44.0, 292.0, 26.0, 138.0
    last = max(max(point[0] for point in points), 1.0)
    low, high = min(point[1] for point in points), max(point[1] for point in points)
    spread = (high - low) or max(abs(high), 1e-9) * 0.1

    def place(point: tuple[float, float]) -> str:
        x = left + (right - left) * point[0] / last
        return f"{_at(x)},{_at(bottom - (bottom - top) * (point[1] - low) / spread)}"

    body = [f'<text class="title" x="{_at(left)}" y="14">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        body += [
            _line(left, y, right, y, LIGHT),
            _text(left - 5, y + 4, f"{low + share * spread:.3g}", "end"),
        ]
    body += [_text(left, 153, "0", "start"), _text(right, 153, f"step {last:.0f}", "end")]
    for name, colour in (("train", BLUE), ("validation", ORANGE)):
        line = [place(point) for point in series.get(name, ()) if math.isfinite(point[1])]
        if len(line) > 1:
            joined = " ".join(line)
            body.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if line and (name == "validation" or len(line) == 1):
            body += [
                f'<circle cx="{x}" cy="{y}" r="2.6" fill="{colour}"/>'
                for x, y in (p.split(",") for p in line)
            ]
    words = ", ".join(f"{name} ends at {line[-1][1]:.3g}" for name, line in sorted(series.items()) if line)
    return _svg(300, 160, f"{title}: {words}", body, "chart")


def roc(title: str, note: str, points: Sequence[tuple[float, float]]) -> str:
    """One label's ROC curve with the diagonal of chance."""
    left, top, side = 30.0, 38.0, 150.0
    path = " ".join(f"{_at(left + side * fpr)},{_at(top + side * (1 - tpr))}" for fpr, tpr in points)
    frame = f'x="{_at(left)}" y="{_at(top)}" width="{_at(side)}" height="{_at(side)}"'
    heading = textwrap.wrap(title, TITLE_CHARACTERS)[:2]
    body = [
        *(
            f'<text class="title" x="{_at(left)}" y="{29 - 14 * (len(heading) - 1 - at)}">{escape(line)}</text>'
            for at, line in enumerate(heading)
        ),
        f'<rect {frame} fill="none" stroke="{LIGHT}"/>',
        _line(left, top + side, left + side, top, ORANGE, ' stroke-dasharray="3 3"'),
        f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>',
        _text(left + side - 4, top + side - 7, note, "end"),
        *(_text(left - 5, top + side * (1 - at) + 4, f"{at:g}", "end") for at in (0, 1)),
        *(_text(left + side * at, top + side + 14, f"{at:g}") for at in (0, 1)),
        _text(left + side / 2, top + side + 14, "1 − specificity"),
    ]
    return _svg(190, 208, f"ROC curve of {title}, {note}", body, "chart roc")


def share_bar(value: float, total: float) -> str:
    """A bar of value out of total."""
    part = 0.0 if total <= 0 else min(value / total, 1.0)
    body = [
        f'<rect x="0" y="4" width="160" height="10" rx="2" fill="{LIGHT}"/>',
        f'<rect x="0" y="4" width="{_at(160 * part)}" height="10" rx="2" fill="{BLUE}"/>',
    ]
    return _svg(160, 18, f"{part:.0%}", body, "interval")


def upright(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A slice [right, anterior or superior] as a person looks at it: the patient's right on the left, top up."""
    return plane.T[::-1, ::-1]


def grey(plane: npt.NDArray[Any], window_hu: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """A slice in HU as grey RGB [H, W, 3], upright."""
    import numpy as np

    low, high = window_hu
    values = np.clip((upright(plane).astype(np.float64) - low) / (high - low), 0, 1)
    return np.repeat(np.rint(values * 255).astype(np.uint8)[..., None], 3, axis=2)


def overlay(
    plane: npt.NDArray[Any], labels: npt.NDArray[Any], window_hu: tuple[float, float]
) -> npt.NDArray[np.uint8]:
    """A slice in HU with coloured labels over it, RGB [H, W, 3], upright."""
    import numpy as np

    picture = grey(plane, window_hu).astype(np.float64)
    shown = upright(labels)
    for one in sorted(set(np.unique(shown).tolist()) - {0}):
        colour = CLASS_COLOURS[(int(one) - 1) % len(CLASS_COLOURS)]
        rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], dtype=np.float64)
        picture[shown == one] = 0.45 * picture[shown == one] + 0.55 * rgb
    return np.rint(picture).astype(np.uint8)


def png(picture: npt.NDArray[np.uint8], aspect: float = 1.0) -> str:
    """RGB [H, W, 3] as a `data:` address; `aspect` is a row's height over a column's width in millimetres."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = max(1.0, MIN_PIXELS / max(width, height * aspect))
    size = (max(1, round(width * factor)), max(1, round(height * aspect * factor)))
    image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
