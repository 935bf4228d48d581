"""Figures draw what was measured, say it in words, stay small, and are inert."""

import hashlib
import itertools
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.stats import t as student

from lab.claims.figures import Curves, Heatmap, Scatter, cosine_cycles
from lab.claims.vocabulary import Claim, Contrast, Experiment, Setting
from lab.figures import drawing
from lab.figures.style import DASHES, INK, MARKERS, PALETTE, SIZE, WIDTH, look, stacked, words
from lab.figures.summaries import FEW, band, families, n_seeds, some
from lab.figures.svg import DARK, compact, themed
from lab.records.measured import Measured
from lab.records.verdicts import judge_all
from tests.cases import first_of

ROOT = Path(__file__).resolve().parents[3]
SETTING = Setting("quick", "digits", "mlp", "tensorflow")
NASTY = "</text><script>alert(1)</script>&amp; $x$ \x00 _ ü 漢"
POINTS = Scatter("points", "Points", "k", "m", "k (units)", "m (points)", y_scale=100)
JOINED = Scatter("joined", "Joined", "size", "m", "size", "m", joined=True, log_x=True)
LINES = Curves("lines", "Lines", "x (units)", {"y": [("a", "small", "c"), ("b", "large", "c")]})
HEAT = Heatmap(
    "heat",
    "Heat",
    "points",
    {
        "panel": {
            "gain": {"large": Contrast("m", {"large": 1, "small": -1})},
            "level": {"large": Contrast("m", {"large": 1}), "gone": Contrast("no", {"large": 1})},
        }
    },
    scale_by=100,
)
DECLARED = [POINTS, JOINED, LINES, HEAT]


def claim(id="A", metric="m", **more):
    parts = {"says": "s", "margin": 0.1, "unit": "points", "literature": "none", "scale_by": 100}
    return Claim(id, contrast=Contrast(metric, {"large": 1, "small": -1}), **(parts | more))


def experiment(**more):
    parts = {
        "title": "t",
        "source": "s",
        "arms": {"small": {}, "large": {}},
        "scales": {"quick": {"seeds": 4}},
        "claims": [claim(beside={"naive": Contrast("m", {"large": 1})})],
        "run": lambda trial: None,
        "figures": DECLARED,
    }
    return Experiment(**(parts | more))


def measured(seeds=4, arms=("small", "large"), epochs=2, change=None):
    """Values one can check by hand: m is 1, 2, ... by arm plus a tenth of the seed."""
    made = Measured("toy", SETTING)
    for seed, (i, arm) in itertools.product(range(seeds), enumerate(arms)):
        rows = [(None, "m", i + 1 + seed / 10), (None, "k", seed - i), (None, "size", 8 * 2**i)]
        rows += [(None, f"c@{x:g}", x**2 + i + seed / 10) for x in (-1.0, 0.0, 0.5)]
        rows += [(e, name, seed / 10 + 1 / e) for e in range(1, epochs + 1) for name in ("loss",)]
        made.add(arm, seed, change(rows) if change else rows, {"status": "done"})
    return made


def drawn(of=None, spec=None):
    of, spec = of or measured(), spec or experiment()
    return {one.name: one for one in drawing.draw(spec, of, judge_all("toy", spec, of))}


def line(axes, colour=INK, marker=None):
    """The one line of a colour, and of a marker where that is asked for."""
    found = [
        one
        for one in axes.get_lines()
        if one.get_color() == colour and marker in (None, one.get_marker())
    ]
    assert len(found) == 1, len(found)
    return found[0]


def test_every_kind_is_drawn_with_title_caption_and_alt():
    found = drawn()
    names = ["intervals", "seeds", "arms", "points", "joined", "lines", "heat", "learning_curves"]
    assert list(found) == names
    for one in found.values():
        assert "n = 4 seeds" in one.caption and len(one.alt) > 20 and one.title


def test_intervals_stand_in_units_of_the_margin():
    axes = drawn()["intervals"].figure.axes[0]
    dot = next(one for one in axes.get_lines() if one.get_marker() == "o")
    assert dot.get_xdata()[0] == pytest.approx(1 / 0.1)  # every seed: 2.s - 1.s = 1
    naive = next(one for one in axes.get_lines() if one.get_marker() == "x")
    assert naive.get_xdata()[0] == pytest.approx(2.15 / 0.1)


def test_an_interval_is_drawn_as_it_was_judged():
    noisy = measured(change=lambda rows: [(e, m, v * (1 + v / 50)) for e, m, v in rows])
    spec = experiment()
    (verdict,) = judge_all("toy", spec, noisy)
    axes = drawn(noisy, spec)["intervals"].figure.axes[0]
    bar = next(one for one in axes.get_lines() if one.get_linewidth() == 4)
    expected = [verdict.judgement.low / 0.1, verdict.judgement.high / 0.1]
    np.testing.assert_allclose(bar.get_xdata(), expected)
    assert "A m: supported" in drawn(noisy, spec)["intervals"].alt


def test_alt_texts_hold_the_numbers():
    found = drawn()
    assert "mean 115 (small) to 215 (large), 4 of 4 seeds rise" in found["seeds"].alt
    assert "small: m 115 [94.5, 136]" in found["arms"].alt
    assert "y, b: from 2.15 at −1 to 1.4 at 0.5, lowest 1.15 at 0" in found["lines"].alt
    assert "large 0.5 and 215 (n = 4); small 1.5 and 115 (n = 4)" in found["points"].alt
    assert "panel, level, large: +215 ± 21" in found["heat"].alt
    assert "panel, gain, gone: –" in found["heat"].alt
    assert "small: loss 1.15 to 0.65 in 2 epochs" in found["learning_curves"].alt
    assert "margin 10" in found["intervals"].alt and "naive 215" in found["intervals"].alt


def test_paired_seeds_are_lines_from_arm_to_arm():
    axes = drawn()["seeds"].figure.axes[0]
    up = line(axes, PALETTE[0])
    expected = [110, 210, 120, 220, 130, 230, 100, 200]
    pairs = up.get_ydata()[np.isfinite(up.get_ydata())].reshape(-1, 2)
    assert sorted(map(tuple, pairs.round(6))) == sorted(zip(*[iter(expected)] * 2, strict=True))
    np.testing.assert_allclose(line(axes, INK).get_ydata(), [115, 215])


def test_arms_show_every_seed_and_students_interval():
    axes = drawn()["arms"].figure.axes[0]
    dots = [one for one in axes.get_lines() if one.get_color() == PALETTE[0]]
    np.testing.assert_allclose(dots[0].get_xdata(), [100, 110, 120, 130])
    values = np.array([100, 110, 120, 130])
    half = student.ppf(0.975, 3) * values.std(ddof=1) / 2
    bar = next(one for one in axes.get_lines() if one.get_linewidth() == 3)
    np.testing.assert_allclose(bar.get_xdata(), [115 - half, 115 + half])


def test_scatter_draws_one_point_per_trial_in_the_unit_asked_for():
    large, small = drawn()["points"].figure.axes[0].get_lines()
    np.testing.assert_allclose(small.get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(small.get_ydata(), [100, 110, 120, 130])
    np.testing.assert_allclose(large.get_ydata(), [200, 210, 220, 230])


def test_joined_points_go_from_setting_to_setting_with_the_mean_on_top():
    axes = drawn()["joined"].figure.axes[0]
    np.testing.assert_allclose(line(axes).get_xydata(), [[8, 1.15], [16, 2.15]])
    thin = next(one for one in axes.get_lines() if one.get_linewidth() < 1)
    np.testing.assert_allclose(thin.get_xdata()[:3], [8, 16, math.nan])
    np.testing.assert_allclose(thin.get_ydata()[3:6], [1.1, 2.1, math.nan])


def test_a_curve_is_drawn_through_the_means_with_a_band_over_seeds():
    axes = drawn()["lines"].figure.axes[0]
    small, large = axes.get_lines()
    np.testing.assert_allclose(small.get_xdata(), [-1, 0, 0.5])
    np.testing.assert_allclose(small.get_ydata(), [1.15, 0.15, 0.4])
    np.testing.assert_allclose(large.get_ydata(), [2.15, 1.15, 1.4])
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert edges.min() == pytest.approx(0) and edges.max() == pytest.approx(1.3)


def test_a_law_goes_through_measured_points_and_stops_before_what_follows():
    marks = {"first": 1.0, "second": 2.0}
    laws = {"rate": ("cosine", "small", "start", cosine_cycles)}
    spec = Curves("course", "C", "cycles", {"rate": [("s", "small", "r")]}, marks=marks, laws=laws)
    made = Measured("toy", SETTING)
    rows = [(None, "start", 0.2), *((None, f"r@{x:g}", cosine_cycles(x, 0.2)) for x in (0.5, 1.5))]
    made.add("small", 0, [*rows, (None, "r@2", 0.0)], {})
    found = drawing.declared(spec, made)
    law = next(o for o in found.figure.axes[0].get_lines() if len(o.get_xdata()) > 100)
    xs, ys = law.get_data()
    assert ys[0] == pytest.approx(0.2) and ys[-1] == pytest.approx(0, abs=1e-9)
    assert ys[np.argmin(abs(xs - 0.5))] == pytest.approx(0.1, abs=0.002)
    points = line(found.figure.axes[0], PALETTE[0])
    assert points.get_linestyle() == "None"  # nothing is drawn between measured points but the law
    assert [text.get_text() for text in found.figure.axes[0].texts] == ["first", "second"]


def test_heat_map_cells_are_means_of_paired_contrasts():
    axes = drawn()["heat"].figure.axes[0]
    cells = axes.collections[0].get_array()
    np.testing.assert_allclose(cells.compressed(), [100, 215])
    half = student.ppf(0.975, 3) * np.std([200, 210, 220, 230], ddof=1) / 2
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["+100", "–", f"+215\n± {half:.0f}", "–"]
    assert axes.collections[0].norm(0.0) == pytest.approx(0.5)  # zero is the neutral middle


def test_learning_curves_are_means_by_epoch_and_thin_out_long_trainings():
    axes = drawn()["learning_curves"].figure.axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), [[1, 1.15], [2, 0.65]])
    long = drawn(measured(epochs=500))["learning_curves"].figure.axes[0]
    xs = long.get_lines()[0].get_xdata()
    assert len(xs) <= 60 and xs[0] == 1 and xs[-1] == 500


def test_validation_is_dashed():
    def also(rows):
        return [*rows, *((e, f"val_{m}", v + 1) for e, m, v in rows if e)]

    found = drawn(measured(change=also))["learning_curves"]
    styles = {one.get_linestyle() for one in found.figure.axes[0].get_lines()}
    assert styles == {"-", "--"} and "dashed on validation data" in found.caption


def test_an_experiment_that_is_not_installed_has_arms_and_learning_curves():
    found = list(drawing.draw(None, measured(), []))
    assert [one.name for one in found] == ["arms", "learning_curves"]
    assert "m 1.15" in found[0].alt


def test_nothing_measured_is_not_drawn():
    empty = Measured("toy", SETTING)
    assert [drawing.declared(spec, empty) for spec in DECLARED] == [None] * 4
    assert list(drawn(empty)) == ["intervals"]
    assert list(drawing.draw(None, empty, [])) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [(e, m, math.nan) for e, m, _ in rows],
        lambda rows: [(e, m, math.inf) for e, m, _ in rows],
        lambda rows: [(e, m, 0.0) for e, m, _ in rows],
        lambda rows: [(e, m, -v) for e, m, v in rows],
        lambda rows: [(e, m, v * 1e300) for e, m, v in rows],
        lambda rows: [(e, m, v * 1e-300) for e, m, v in rows],
        lambda rows: [*rows[:4], (None, "c@nan", 1.0), (None, "c@x", 1.0), (None, "c@", 1.0)],
    ],
)
@pytest.mark.parametrize("seeds", first_of([3, 1], 1))
def test_no_value_breaks_a_figure(change, seeds):
    log = [Scatter("l", "L", "k", "m", "k", "m", log_x=True, log_y=True)]
    log += [Curves("z", "Z", "x", LINES.panels, log_x=True, log_y=True)]
    spec = experiment(figures=[*DECLARED, *log])
    for one in drawn(measured(seeds, change=change), spec).values():
        assert ElementTree.fromstring(drawing.svg(one.figure)).tag.endswith("svg")


def test_one_value_that_is_none_leaves_the_others():
    broken = measured()
    broken.values[2]["large", "m"] = math.nan
    found = drawn(broken)
    assert "n = 3 seeds" in found["seeds"].caption
    assert "n = 3 to 4 seeds" in found["points"].caption


def test_hostile_text_is_inert_and_kept():
    arms = {"small": {}, "large": {}}
    spec = experiment(
        arms=arms,
        claims=[claim(id=NASTY, under=NASTY)],
        figures=[
            Curves("lines", NASTY, NASTY, {NASTY: [(NASTY, "small", "c"), ("_b", "large", "c")]}),
            Scatter("points", NASTY, "k", "m", NASTY, NASTY),
            Heatmap("heat", NASTY, NASTY, {NASTY: {NASTY: {NASTY: Contrast("m", {"small": 1})}}}),
        ],
    )
    made = measured(change=lambda rows: [*rows, (1, NASTY, 1.0)])
    for one in drawn(made, spec).values():
        content = drawing.svg(one.figure)
        root = ElementTree.fromstring(content)
        assert not [tag for tag in root.iter() if "script" in tag.tag]
        assert b"<script" not in content
        assert re.fullmatch(r"[a-z_]+", one.name)
    texts = "".join(root.itertext())
    assert "alert(1)" in texts and "&amp;" in texts and "$x$" in texts


def test_a_text_that_looks_like_a_tag_or_a_path_is_not_shortened():
    spec = Curves("l", 'x="1.23456" 9.87654', "x", LINES.panels)
    content = drawing.svg(drawing.declared(spec, measured()).figure).decode()
    assert "9.87654" in content and "1.23456" in content


def test_figures_are_the_same_bytes_in_another_process():
    code = (
        "import sys, hashlib; sys.path[:0] = ['.', 'tests/lab/figures']\n"
        "import test_drawing as t\n"
        "for one in t.drawn().values():\n"
        "    both = t.drawing.svg(one.figure) + t.drawing.png(one.figure)\n"
        "    print(one.name, hashlib.sha256(both).hexdigest())\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    here = []
    for one in drawn().values():
        both = drawing.svg(one.figure) + drawing.png(one.figure)
        here.append(f"{one.name} {hashlib.sha256(both).hexdigest()}")
    assert done.stdout.splitlines() == here and len(here) == 8, done.stderr


def test_svg_then_png_is_png_then_svg():
    one, other = drawn()["lines"].figure, drawn()["lines"].figure
    first = drawing.svg(one), drawing.png(one)
    second = drawing.png(other), drawing.svg(other)
    assert first == second[::-1]
    assert first[1].startswith(b"\x89PNG") and b"Software" not in first[1]


@pytest.mark.parametrize("seeds", [10, 300])
def test_figures_stay_small_whatever_they_are_drawn_from(seeds):
    arms = tuple(f"arm_{i}" for i in range(10))
    spec = experiment(
        arms={arm: {} for arm in arms},
        claims=[
            Claim(f"A{i}", "s", Contrast("m", {"arm_0": -1, arm: 1}), 0.1, "points", "none")
            for i, arm in enumerate(arms[1:])
        ],
        figures=[POINTS, JOINED, Curves("lines", "L", "x", {"y": [(a, a, "c") for a in arms]})],
    )
    for one in drawn(measured(seeds, arms, epochs=60), spec).values():
        assert len(drawing.svg(one.figure)) < 64_000, one.name


def test_neighbours_differ_in_marker_and_dash_as_well_as_in_colour():
    looks = [look(i) for i in range(30)]
    for one, other in itertools.pairwise(looks):
        assert one["marker"] != other["marker"] and one["ls"] != other["ls"]
        assert one["color"] != other["color"]
    whole = {(str(one["color"]), one["marker"]) for one in looks}
    assert len(whole) == len(looks)
    assert len(set(MARKERS)) == len(MARKERS) and len(DASHES) >= 4


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_of_a_dark_page_stand_out_from_it():
    sheet = luminance(DARK["#ffffff"])
    for light, dark in DARK.items():
        if light not in ("#ffffff", "#e6e6e6"):
            assert (luminance(dark) + 0.05) / (sheet + 0.05) >= 4.5, dark


def test_text_is_text_and_every_colour_changes_in_the_dark():
    content = drawing.svg(drawn()["lines"].figure).decode()
    root = ElementTree.fromstring(content)
    texts = [tag for tag in root.iter() if tag.tag.endswith("}text")]
    assert "Lines" in "".join(root.itertext()) and len(texts) > 8
    dark = re.search(r"@media \(prefers-color-scheme:dark\)\{(.*?)\}</style>", content)[1]
    body = content.split("</style>", 1)[1]
    known = {colour.lower() for colour in DARK}
    for part, colour in set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", body)):
        assert colour in known, colour
        assert f'[style*="{part}: {colour}"]' in dark


def test_no_text_is_too_small_and_none_leaves_the_sheet():
    for one in drawn().values():
        figure = one.figure
        renderer = rendered(figure)
        sheet = figure.bbox
        assert figure.get_figwidth() == WIDTH
        for text in figure.findobj(lambda a: hasattr(a, "get_fontsize") and hasattr(a, "get_text")):
            if text.get_visible() and text.get_text():
                assert text.get_fontsize() >= SIZE
        for text in [*figure.texts, *(label for a in figure.axes for label in shown(a))]:
            if not text.get_text():
                continue
            box = text.get_window_extent(renderer)
            assert box.x0 >= sheet.x0 - 0.5 and box.x1 <= sheet.x1 + 0.5, text
            assert box.y0 >= sheet.y0 - 0.5 and box.y1 <= sheet.y1 + 0.5, text


def rendered(figure):
    figure.set_dpi(72)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def shown(axes):
    return [axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title, *axes.texts]


def test_a_long_label_of_an_upper_panel_is_not_clipped():
    """The upper y label of gain_over_horizon once was: it is longer than its panel is high."""
    label = "own rates, statistics recomputed, and a good deal more of it, points"
    spec = Curves("l", "L", "x", {label: LINES.panels["y"], "naive": LINES.panels["y"]})
    figure = drawing.declared(spec, measured()).figure
    renderer = rendered(figure)
    axes = figure.axes[0]
    box = axes.yaxis.label.get_window_extent(renderer)
    assert box.height <= axes.get_window_extent().height + 12


def test_compaction_keeps_what_is_drawn():
    before = (
        '<svg><defs><path id="m0123456789" d="M 1.23456 2 \n"/></defs><g id="a"><g id="b">'
        '<use xlink:href="#m0123456789" x="1.23456" y="2" style="fill: #1f2328"/>\n'
        '<use xlink:href="#m0123456789" x="2" y="2" style="fill: #1f2328"/></g></g></svg>'
    )
    after = themed(compact(before))
    assert after.count("<use") == 2 and 'x="1.23"' in after and 'd="M 1.2 2"' in after
    assert after.count('style="fill: #1f2328"') == 1 and after.count('id="') == 1
    assert after.count("<g") == after.count("</g>")


def test_bands_show_all_of_few_seeds_and_most_of_many():
    few, many = np.arange(FEW)[:, None] * 1.0, np.arange(101)[:, None] * 1.0
    assert [float(edge[0]) for edge in band(few)] == [0, FEW - 1]
    assert [float(edge[0]) for edge in band(many)] == [5, 95]
    assert list(some(5)) == [0, 1, 2, 3, 4]
    thinned = some(1000, 10)
    assert len(thinned) == 10 and thinned[0] == 0 and thinned[-1] == 999


def test_a_family_is_where_every_seed_has_a_value():
    made = measured(2)
    made.values[1]["small", "c@-1"] = math.nan
    xs, ys = families(made, [("small", "c")])["small", "c"]
    assert list(xs) == [0, 0.5] and ys.shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "lines"),
    [("small", "small"), ("large_epochs_tuned", "large_\nepochs_\ntuned"), ("_x", " _x")],
)
def test_names_are_stacked_at_their_underscores(name, lines):
    assert stacked(name) == lines


def test_words_have_no_control_characters():
    assert words("a\x07b\ud800") == "a?b?" and words("_x") == " _x"
    assert n_seeds([3]) == "n = 3 seeds"
