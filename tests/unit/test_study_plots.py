"""Plots of studies: all of it in view, nothing that a browser would take for markup."""

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from stillroom.study.reports.curves import Point, curves_svg
from stillroom.study.reports.forest import Line, Scale, forest_svg
from stillroom.study.reports.panels import panels_svg
from stillroom.study.reports.scatter import scatter_svg

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["a", "<b> & c", "x" * 80]
finite = st.floats(-100, 100).map(lambda x: round(x, 3))


@st.composite
def lines(draw):
    def one(name):
        low, value, high = sorted(draw(finite) for _ in range(3))
        return Line(name, value, low, high, draw(st.sampled_from([-1, 0, 1])))

    return [one(name) for name in NAMES]


def circles_in_view(svg):
    root = ET.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    found = list(root.iter(f"{SVG}circle"))
    assert all(0 <= float(c.get("cx")) <= width for c in found)
    assert all(0 <= float(c.get("cy")) <= height for c in found)
    for line in root.iter(f"{SVG}line"):
        assert all(-1 <= float(line.get(x)) <= width + 1 for x in ("x1", "x2"))
    assert root.find(f"{SVG}b") is None
    return found


@given(lines())
def test_forest_shows_every_line(drawn):
    assert len(circles_in_view(forest_svg("points <above> & more", drawn, zero=True))) == 3


@given(st.lists(lines(), min_size=1, max_size=8))
def test_panels_show_every_arm_on_every_benchmark(panels):
    named = {f"bench <{i}>": panel for i, panel in enumerate(panels)}
    assert len(circles_in_view(panels_svg("points", named))) == 3 * len(panels)


@given(st.lists(st.lists(finite, min_size=1, max_size=4), min_size=1, max_size=9))
def test_curves_show_every_point(values):
    sizes = (316, 1_000, 3_160, 10_000)
    curves = {
        f"arm <{i}>": [Point(size, v, v - 1, v + 1) for size, v in zip(sizes, curve, strict=False)]
        for i, curve in enumerate(values)
    }
    svg = curves_svg("right, %", "rows", curves)
    assert len(circles_in_view(svg)) == sum(map(len, values))
    assert all(f"arm &lt;{i}&gt;" in svg for i in range(len(values)))


@given(st.lists(finite, min_size=1), st.integers(3, 10))
def test_scale_holds_all_values_between_round_ends(values, ticks):
    scale = Scale.over(values, ticks=ticks)
    assert all(-1e-9 <= scale.share(v) <= 1 + 1e-9 for v in values)
    assert 2 <= len(scale.ticks()) <= ticks + 3


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_a_scatter_shows_every_pair(pairs):
    assert len(circles_in_view(scatter_svg("observed <%>", pairs))) == len(pairs)


def test_a_tick_to_compare_with_widens_the_axis():
    plain = Line("a", 1.0, 0.5, 1.5)
    assert ">100<" not in forest_svg("t", [plain], zero=True)
    assert ">100<" in forest_svg("t", [Line("a", 1.0, 0.5, 1.5, against=90.0)], zero=True)
