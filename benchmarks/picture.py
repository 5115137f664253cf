"""The history of the ratios as a picture: a panel each, with its target as a dashed line."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined

WIDTH, HEIGHT = 380, 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 14, 70, 30, 22
COLUMNS = 2


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a ratio was on a day."""

    day: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A ratio's history."""

    title: str
    unit: str
    target: float
    least: bool
    points: tuple[Point, ...]

    def y(self, value: float) -> float:
        """Where a value is; zero is at the bottom."""
        most = 1.15 * max([self.target, *(point.value for point in self.points)])
        return round(HEIGHT - _BOTTOM - value / most * (HEIGHT - _TOP - _BOTTOM), 1)

    def x(self, number: int) -> float:
        """Where a point is; a single one is in the middle."""
        room = WIDTH - _LEFT - _RIGHT
        count = len(self.points)
        return round(_LEFT + (room / 2 if count < 2 else number * room / (count - 1)), 1)

    def met(self, value: float) -> bool:
        """Whether the target is."""
        return value >= self.target if self.least else value < self.target


_TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width * columns }} {{ height * lines }}" \
font-family="sans-serif" font-size="11" role="img">
<title>Each ratio after each measurement, and its target</title>
<rect width="100%" height="100%" fill="#ffffff"/>
{%- for panel in panels %}
<g transform="translate({{ loop.index0 % columns * width }} {{ loop.index0 // columns * height }})">
<text x="{{ left }}" y="16" fill="#222222">{{ panel.title }}</text>
<line x1="{{ left }}" x2="{{ width - right }}" y1="{{ bottom }}" y2="{{ bottom }}" stroke="#999999"/>
<line x1="{{ left }}" x2="{{ width - right }}" y1="{{ panel.y(panel.target) }}" \
y2="{{ panel.y(panel.target) }}" stroke="#666666" stroke-dasharray="4 3"/>
<text x="{{ width - right + 6 }}" y="{{ panel.y(panel.target) + 4 }}" fill="#666666">\
{{ "\u2265" if panel.least else "<" }} {{ "%g"|format(panel.target) }} {{ panel.unit }}</text>
{%- if panel.points %}
<polyline fill="none" stroke="#3366aa" points="
{%- for point in panel.points %}{{ panel.x(loop.index0) }},{{ panel.y(point.value) }} {% endfor %}"/>
{%- for point in panel.points %}
<circle cx="{{ panel.x(loop.index0) }}" cy="{{ panel.y(point.value) }}" r="3.5" \
fill="{{ "#2a7a2a" if panel.met(point.value) else "#b03030" }}">\
<title>{{ point.day }}: {{ "%.3g"|format(point.value) }} {{ panel.unit }}, \
{{ "met" if panel.met(point.value) else "missed" }}</title></circle>
{%- endfor %}
<text x="{{ panel.x(panel.points|length - 1) }}" y="{{ panel.y(panel.points[-1].value) - 7 }}" \
text-anchor="middle" fill="#222222">{{ "%.3g"|format(panel.points[-1].value) }}</text>
<text x="{{ left }}" y="{{ height - 8 }}" fill="#666666">{{ panel.points[0].day }}\
{% if panel.points|length > 1 %} to {{ panel.points[-1].day }}{% endif %}</text>
{%- endif %}
</g>
{%- endfor %}
</svg>
"""


def svg(panels: list[Panel]) -> str:
    """The picture. The same panels give the same text."""
    made = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return made.from_string(_TEMPLATE).render(
        panels=panels,
        columns=COLUMNS,
        lines=-(-len(panels) // COLUMNS),
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        bottom=HEIGHT - _BOTTOM,
    )
