"""The pictures: same bytes twice, readable by machines, right numbers, colours that can be told apart."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from reports import figures
from reports.figures import Series

LABELS = ["1", "0.75", "0.001", "1/j", "0"]
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("x")</script> $\\frac & "quoted"'


def example(name: str = "a", title: str = "MNIST") -> str:
    x = list(range(5))
    survey = Series("survey", x, [2.7, 1.91, 1.95, 2.1, 24.27])
    ours = Series("ours", x[:4], [5.0, 4.0, 4.1, 4.2], [4.5, 3.5, 3.6, 3.7], [5.5, 4.5, 4.6, 4.7])
    return figures.points(
        name, title, LABELS, [survey, survey, ours], xlabel="alpha", ylabel="test error (%)"
    )


def test_same_numbers_give_the_same_bytes() -> None:
    assert example() == example()


def test_svg_is_well_formed_named_and_keeps_its_words() -> None:
    root = ET.fromstring(example())
    texts = ["".join(t.itertext()).strip() for t in root.iter(f"{SVG}text")]
    assert set(LABELS) <= set(texts), "0.001 must not be cut to 0.00 with the coordinates"
    assert "test error (%)" in texts and "alpha" in texts
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text == "MNIST"
    assert description is not None and description.text is not None
    assert "ours: 1: 5.00 (4.50 to 5.50); 0.75: 4.00" in description.text
    assert "survey" in description.text and "0: 24.3" in description.text


def test_two_figures_of_one_page_share_no_id_and_refer_to_their_own() -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', example(name))) for name in ("left", "right")]
    assert ids[0] and not ids[0] & ids[1]
    for name in ("left", "right"):
        text = example(name)
        targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        assert targets and targets <= set(re.findall(r'\bid="([^"]+)"', text))


def test_hostile_names_are_text() -> None:
    svg = figures.curves("h", HOSTILE, [Series(HOSTILE, [1, 2], [3.0, 2.0])], ylabel=HOSTILE)
    root = ET.fromstring(svg)
    assert not list(root.iter(f"{SVG}script"))
    assert root.find(f"{SVG}title").text == HOSTILE  # type: ignore[union-attr]
    assert "".join(
        ET.fromstring(figures.spark(HOSTILE, {"epoch": [1, 2], "test_error": [2.0, 1.0]})).itertext()
    )


def test_no_address_but_the_namespaces() -> None:
    found = set(re.findall(r"https?://[^\s\"'<]+", example()))
    assert found <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def marks(svg: str, color: str) -> list[tuple[float, float]]:
    """Positions of the markers of one colour."""
    pattern = r'<use xlink:href="#[^"]+" x="([\d.]+)" y="([\d.]+)" style="[^"]*' + re.escape(color)
    return [(float(x), float(y)) for x, y in re.findall(pattern, svg)]


def test_points_stand_where_the_numbers_say() -> None:
    values = [4.0, 2.0, 3.0, 2.5]
    svg = figures.line("p", "t", [Series("s", [0, 1, 2, 3], values)], xlabel="x", ylabel="y")
    found = marks(svg, figures.C["c1"])
    assert len(found) == 4
    x, y = np.array(found).T
    np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.02)
    slope, offset = np.polyfit(values, y, 1)  # SVG's y grows downwards: an affine map with a negative slope
    assert slope < 0
    np.testing.assert_allclose(slope * np.array(values) + offset, y, atol=0.05)


def test_runs_that_never_get_there_count_in_the_median_and_are_named() -> None:
    values = [[1.0, 2.0, 6.0], [5.0, math.inf, 7.0], [5.0, math.inf, math.inf], [math.nan, 3.0]]
    svg = figures.strip("s", "t", list("abcd"), values, xlabel="x", ylabel="y")
    assert len(marks(svg, figures.C["c1"])) == 3 + 2 + 1 + 1
    root = ET.fromstring(svg)
    texts = ["".join(t.itertext()).strip() for t in root.iter(f"{SVG}text")]
    assert [texts[i - 1] for i, t in enumerate(texts) if t == "never"] == ["1", "2"]
    description = root.find(f"{SVG}desc")
    assert description is not None and description.text is not None
    assert "a: 2.00 (n = 3); b: 7.00 (n = 3, 1 never); c: never (n = 3, 2 never); d: 3.00 (n = 1)" in (
        description.text
    )


def test_what_has_no_value_is_not_in_the_legend() -> None:
    nothing = Series("survey", [0, 1], [math.nan, math.nan])
    svg = figures.points("p", "t", ["a", "b"], [nothing, Series("source", [0], [2.0]),
                         Series("ours", [0, 1], [1.0, 2.0])], xlabel="x", ylabel="y")  # fmt: skip
    texts = {"".join(t.itertext()).strip() for t in ET.fromstring(svg).iter(f"{SVG}text")}
    assert {"source", "ours"} <= texts and "survey" not in texts


def test_missing_values_leave_no_mark_in_a_heat_map() -> None:
    values = np.array([[1.0, math.nan], [2.0, 3.0]])
    svg = figures.heat(
        "h", "t", ["a", "b"], ["c", "d"], values, np.ones((2, 2)), xlabel="x", ylabel="y", zlabel="z"
    )
    texts = ["".join(t.itertext()).strip() for t in ET.fromstring(svg).iter(f"{SVG}text")]
    assert [t for t in texts if re.fullmatch(r"\d\.\d\d", t)].count("1.00") == 1
    assert "nan" not in svg.lower().replace("nanmean", "")
    assert "b, c" not in svg and "b, d: 3.00 (n = 1)" in svg


def test_mean_curve_over_ragged_runs_is_numpys() -> None:
    runs = [([1, 2, 3], [9.0, 6.0, 3.0]), ([1, 2], [7.0, 5.0]), ([2, 3], [None, 1.0])]
    s = figures.mean_curve("m", runs)  # type: ignore[arg-type]
    table = np.array([[9, 6, 3], [7, 5, np.nan], [np.nan, np.nan, 1]])
    assert list(s.x) == [1, 2, 3]
    np.testing.assert_allclose(s.y, np.nanmean(table, 0))
    np.testing.assert_allclose(s.low, np.nanmin(table, 0))
    np.testing.assert_allclose(s.high, np.nanmax(table, 0))
    assert figures.mean_curve("none", []).y == []


def test_a_linear_axis_has_the_lower_half_of_an_interval_across_0() -> None:
    """Of gains: that one may be a loss is what decides a claim."""
    _, ax = figures._new()
    assert not figures._log_if_wide(ax, [30.0, 85.0], math.inf, ends=[-18.5, 78.5, 56.0, 114.0])
    assert ax.get_ylim()[0] < -18.5


def test_gains_have_a_line_at_0() -> None:
    ours = figures.Series("ours", [0], [10.4])
    for zero in (False, True):
        svg = figures.points("g", "gain", ["a"], [ours] * 3, xlabel="x", ylabel="y", linear=True, zero=zero)
        ticks = [float(t) for t in re.findall(r">\s*([\d.]+)\s*</text>", svg)]
        assert len(ticks) > 3 and (min(ticks) == 0) is zero


def test_one_wide_interval_does_not_squeeze_the_rest() -> None:
    _, ax = figures._new()
    figures._log_if_wide(ax, [4.0, 4.2, 4.1], ends=[3.9, 4.1, 4.1, 4.3, -40.0, 48.0])
    low, high = ax.get_ylim()
    assert low > 2 and high < 7


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.123, "5.12"), (0.0831, "0.0831"), (1234.5, "1234"), (0, "0.00"), (-2.56, "-2.56"), (1e-7, "1.00e-07"),
     (3e8, "3.00e+08"), (None, "–"), (math.nan, "–"), (math.inf, "–")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert figures.number(value) == text


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2: sum of 0.2126, 0.7152, 0.0722 x linear R, G, B."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def css_of(template: str, dark: bool) -> dict[str, str]:
    import reports.site

    source, _, _ = reports.site.environment().loader.get_source(None, template)  # type: ignore[union-attr,arg-type]
    blocks = re.findall(r":root \{(.*?)\}\n", source, flags=re.S)
    return dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", blocks[dark]))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_meets_wcag_aa(dark: bool) -> None:
    page = css_of("base.html", dark)
    ground = page["ground"]
    for name in ("link", "ok", "bad", "open", "none"):
        assert contrast(page[name], ground) >= 4.5, name
    for name, colours in figures.PALETTE.items():
        if name == "grid":  # lines that carry no number
            continue
        wanted = 4.5 if name == "ink" else 3.0
        assert contrast(colours[dark], ground) >= wanted, name


def test_spark_of_nothing_is_nothing() -> None:
    assert figures.spark("x", {}) == "" and figures.spark("x", {"epoch": [1], "test_error": [None]}) == ""


def test_twenty_curves_differ_in_colour_or_line():
    series = [Series(f"line {i}", [1, 2], [float(i), i + 1.0]) for i in range(20)]
    svg = figures.curves("c", "t", series, ylabel="y", ordered=False)
    styles = re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="([^"]*)"', svg)
    drawn = [s for s in styles if "stroke" in s and "--grid" not in s]
    assert len(drawn) == len(set(drawn)) == 20


def test_four_measured_series_have_marks_and_places_of_their_own():
    nothing = [Series("survey", [], []), Series("source", [], [])]
    ours = [Series(f"ours {i}", [0], [1.0], [1.0], [1.0]) for i in range(4)]
    svg = figures.points("p", "t", ["a", "b"], nothing + ours, xlabel="x", ylabel="y")
    marks = re.findall(r'<use (?:xlink:)?href="#([^"]+)" x="([0-9.]+)"', svg)
    groups = {}
    for name, x in marks:
        groups.setdefault(name, []).append(float(x))
    filled = [xs for xs in groups.values() if 0 < len(xs) <= 2]
    assert len({round(xs[0], 1) for xs in filled}) >= 4
