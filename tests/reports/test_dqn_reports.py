"""Table 4 in the reports: printed figures, claims on two blocks of games, pages and pictures."""

import base64
import html
import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reports import claims, figures, published, readme, relative, site, snapshot, store, tables, view
from reports.analysis import analyse
from reports.claims import table_04
from reports.pages import table_04 as page
from reports.statistics import Judge, Sample
from tests.reports import synthetic_dqn as make
from tests.reports import transcription
from tests.reports.html_checks import check_site

T4 = published.load("T4")
CLAIMS = claims.of("T4")
NOWHERE = Path("does-not-exist")
BLOCKS = {**dict.fromkeys(make.MINATAR, 5), "asterix_minatar": 5, **dict.fromkeys(make.ATARI, 1)}


def report_of(root, measured=None):
    loaded = store.load(root, measured)
    return analyse(loaded.frame, loaded.grid.get("T4", {}), loaded.paper.get("T4", {}), T4, "quick", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Five seeds of MinAtar and one of Atari."""
    root = tmp_path_factory.mktemp("t4")
    make.write(root / "runs", BLOCKS)
    site.build(root / "runs", root / "out", NOWHERE)
    return root, check_site(root / "out")


def test_a_row_that_the_source_alone_has_is_not_called_not_run(built):
    root, _ = built
    report = report_of(root / "runs")
    assert cell(report, "mnih", "best_return", "breakout")["standing"] == "printed"
    (breakout,) = [b for b in tables.comparison(report) if b.title.startswith("Breakout")]
    (line,) = [row for row in breakout.rows if row[0] == "Mnih et al. 2015"]
    assert "401" in line and "–" in line and "not run" not in line
    text = (root / "out" / "table_04.html").read_text(encoding="utf-8")
    (line,) = re.findall(r'<tr><th scope="row">Mnih et al. 2015.*?</tr>', text, re.S)  # where it is printed
    assert "401" in line and "not run" not in line


def mean(row, column, seeds=5):
    return sum(make.score(row, column, seed) for seed in range(seeds)) / seeds


def cell(report, row, metric, column):
    mine = report.cells
    (found,) = mine[(mine["row"] == row) & (mine["column"] == column) & (mine["metric"] == metric)].to_dict(
        "records"
    )
    return found


# ---- printed figures ---------------------------------------------------------------------------------------


def test_cells_and_headings_are_the_surveys():
    """The survey has a row a game and a column an agent."""
    told = transcription.of("T4")
    ours = {
        (c, r): (f.survey, f.printed, f.audit) for (r, c), f in T4.figures.items() if f.survey is not None
    }
    assert ours == {
        (c["row"], c["column"]): (c["value"], c["printed"], tuple(c.get("audit", ()))) for c in told["cells"]
    }
    columns = {c.id: (c.zh, c.en) for c in T4.columns}
    assert all(columns[r["id"]] == (r["zh"], r["en"]) for r in told["rows"])
    rows = {r.id: (r.zh, r.en) for r in T4.rows}
    assert all(rows[c["id"]] == (c["zh"], c["en"]) for c in told["columns"])
    assert {(c.unit, c.better) for c in T4.columns if c.id in make.ATARI} == {("game score", "higher")}
    assert (T4.caption_zh, T4.caption_en) == (told["caption_zh"], told["caption_en"])
    assert [a.id for a in T4.audit] == told["audit"]


def test_survey_and_source_differ_in_one_figure_and_a_row():
    pairs = {key: (f.survey, f.source) for key, f in T4.figures.items() if key[1] in make.ATARI}
    differ = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    assert differ.pop(("dqn_wn", "seaquest")) == (7357, 7375)
    assert differ == {
        ("mnih", column): (None, value)
        for column, value in zip(make.ATARI, (401, 302, 5286, 1975), strict=True)
    }
    assert not any(column.endswith(("_last", "_minatar")) for _, column in T4.figures)


@pytest.mark.parametrize("claim", T4.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T4, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


def test_the_fact_sheets_verdicts():
    told = {c.id: (c.survey, c.source) for c in T4.claims if not c.repeats}
    assert told == {
        **dict.fromkeys(("T4.C1", "T4.C2", "T4.C3", "T4.C4"), ("holds", "holds")),
        "T4.C5": ("n/a", "holds"),
        **dict.fromkeys(("T4.C6", "T4.C7"), ("n/a", "n/a")),  # stated, without figures
    }
    again = {c.id: c.repeats for c in T4.claims if c.repeats}
    assert again == {f"T4.M{i}": f"T4.C{i}" for i in (1, 2, 3, 4, 6, 7)} and list(CLAIMS) == [*told, *again]


@pytest.mark.parametrize(
    ("claim", "whose", "margins"),
    [
        ("T4.C1", "survey", [1448 - 1250, 7357 - 7188, 2179 - 1779]),
        ("T4.C1", "source", [1448 - 1250, 7375 - 7188, 2179 - 1779]),
        ("T4.C2", "survey", [7]),
        ("T4.C3", "survey", [403 - 389.5]),
        ("T4.C4", "survey", [0.0974]),
        ("T4.C4", "source", [0.0980]),
        ("T4.C5", "source", [0.0002]),
    ],
)
def test_margins_by_hand(claim, whose, margins):
    parts = CLAIMS[claim](claims.Printed(T4, whose))
    assert [part.margin for part in parts] == pytest.approx(margins, abs=6e-5)


def test_ties():
    """Equal is no win and no loss; a rate as large will do."""
    level = {
        (r.id, c, m): 5.0
        for r in T4.rows
        for c in T4.data_columns
        for m in ("best", "mean", "rate", "relative")
    }

    def met(name):
        return {p.margin > 0 or (not p.strict and p.margin == 0) for p in CLAIMS[name](level)}

    assert {name for name in CLAIMS if met(name) == {True}} == {"T4.C3", "T4.C5", "T4.M3"}
    just = {**level, ("dqn_wn", "breakout", "best"): 4.75}
    assert [p.margin for p in CLAIMS["T4.C3"](just)] == [0] and not CLAIMS["T4.C3"](just)[0].strict


def test_the_blocks_share_no_column():
    columns = {
        name: {c for p in claim(claims.Measured()) for c in p.columns} for name, claim in CLAIMS.items()
    }
    for name, mine in columns.items():
        assert mine <= {*table_04.MINATAR} if ".M" in name else mine <= {*table_04.ATARI, "rate"}
    assert "asterix_minatar" in T4.data_columns and "enduro_minatar" not in T4.data_columns


# ---- shares of another row's mean --------------------------------------------------------------------------


def runs_of(values):
    """[(row, column, seed, score, status)] as the analysis sees them."""
    names = ["row", "column", "seed", "metrics.best_return", "status"]
    return pd.DataFrame(values, columns=names).assign(**{"match": "cell", "data.fingerprint": "f"})


def test_relative_return_by_hand():
    found = relative.added(
        runs_of([
            ("dqn", "a", 0, 10.0, "finished"), ("dqn", "a", 1, 30.0, "finished"),
            ("dqn", "a", 2, 9.0, "diverged"),
            ("dqn_wn", "a", 0, 20.0, "finished"), ("dqn_wn", "a", 1, 5.0, "diverged"),
            ("dqn_wn", "b", 0, 3.0, "finished"), ("dqn", "c", 0, 0.0, "finished"),
            ("dqn_wn", "c", 0, 3.0, "finished"),
        ]),
        T4,
    )[relative.share(T4)]  # fmt: skip
    wanted = [0.75, 2.25, 0.0, 1.5, 0.0, math.nan, math.nan, math.nan]  # of (10 + 30 + 0) / 3
    assert found.tolist() == pytest.approx(wanted, nan_ok=True)
    assert relative.added(runs_of([]), T4)[relative.share(T4)].empty


def test_false_verdicts_on_the_mean_gain_without_any_effect():
    """Both rows alike, games on scales of their own, five seeds."""
    rng, wrong, times = np.random.default_rng(5), 0, 2000
    scales = dict(zip(table_04.MINATAR, (10, 50, 8, 40), strict=True))
    (part,) = CLAIMS["T4.M4"](claims.Measured())
    for _ in range(times):
        samples = {}
        for game, scale in scales.items():
            scores = {row: scale * rng.normal(1, 0.3, 5) for row in ("dqn", "dqn_wn")}
            base = scores["dqn"].mean()
            for row, values in scores.items():
                samples[row, game, "relative"] = Sample(dict(enumerate(values / base)))
        wrong += Judge(samples).interval(part.margin).verdict != "inconclusive"
    assert wrong / times <= 0.06


# ---- the whole way -----------------------------------------------------------------------------------------


def test_the_synthetic_metrics_are_the_runners():
    from experiments.table_04_dqn import summarise

    found = make.record("dqn_wn", "freeway_minatar", 1)
    assert summarise(found["curves"]) == pytest.approx(found["metrics"])


def test_verdicts_on_generated_runs(built):
    report = report_of(built[0] / "runs")
    found = {c.id: c for c in report.claims}
    assert {name: claim.verdict for name, claim in found.items()} == {
        **dict.fromkeys((f"T4.C{i}" for i in (1, 2, 3, 4, 6, 7)), "inconclusive"),  # one seed of Atari
        "T4.C5": "not run",
        **dict.fromkeys((f"T4.M{i}" for i in (1, 2, 3, 4, 6, 7)), "supported"),
    }
    for claim in found.values():
        if ".C" in claim.id and claim.margin is not None:
            assert claim.margin > 0 and claim.n == 1 and "fewer than 3 seeds" in claim.why
            assert (
                claim.label == "early learning only: 2 % of the published steps"
            )  # of the paper's own games
        elif ".M" in claim.id:
            assert claim.label == "on minatar (stand-in)" and claim.n == 5
    assert found["T4.C5"].why == "1 of 1 parts not run"
    gains = [1.1 * (mean("dqn_wn", c) - mean("dqn", c)) for c in make.MINATAR[1:]]
    assert [part.margin for part in found["T4.M1"].components] == pytest.approx(gains)
    relative_gains = [mean("dqn_wn", c) / mean("dqn", c) - 1 for c in make.MINATAR]
    assert found["T4.M4"].margin == pytest.approx(sum(relative_gains) / 4)
    one = [make.score("dqn_wn", c, 0) / make.score("dqn", c, 0) - 1 for c in make.ATARI]
    assert found["T4.C4"].margin == pytest.approx(sum(one) / 4)
    area = [sum(make.curves(r, "space_invaders", 0)["test_return"]) / 50 for r in ("dqn", "dqn_wn")]
    assert found["T4.C6"].margin == pytest.approx(area[1] - area[0])


def test_three_seeds_of_atari_are_judged_and_a_claim_can_fail(tmp_path):
    make.write(tmp_path, dict.fromkeys(make.ATARI, 3), rows=["dqn", "dqn_wn", "dqn_bn"])
    found = {c.id: c.verdict for c in report_of(tmp_path).claims}
    assert {found[f"T4.C{i}"] for i in (1, 2, 3, 4, 6, 7)} == {"supported"}
    assert {found[f"T4.M{i}"] for i in (1, 2, 3, 4, 6, 7)} == {"not run"}


def test_the_other_way_round(tmp_path):
    """WN clearly behind on one game, ahead on Breakout."""
    made = []
    for column, n in dict.fromkeys(make.MINATAR, 4).items():
        for seed in range(n):
            pair = [make.record(row, column, seed) for row in ("dqn", "dqn_wn")]
            if column in ("seaquest_minatar", "breakout_minatar"):
                pair[0]["metrics"], pair[1]["metrics"] = pair[1]["metrics"], pair[0]["metrics"]
            made += pair
    make.save(tmp_path, made)
    found = {c.id: c for c in report_of(tmp_path).claims}
    assert found["T4.M1"].verdict == "contradicted" and found["T4.M2"].verdict == "contradicted"
    assert found["T4.M3"].verdict == "supported" and found["T4.M7"].verdict == "not run"
    assert [part.verdict for part in found["T4.M1"].components] == ["supported", "contradicted", "supported"]


def test_a_game_where_dqn_scores_nothing(tmp_path):
    made = make.write(tmp_path / "a", dict.fromkeys(make.ATARI, 1), rows=["dqn", "dqn_wn"])
    for found in made:
        if found["cell"] == {"row": "dqn", "column": "enduro"}:
            found["metrics"] |= {"best_return": 0.0, "last_return": 0.0, "mean_return": 0.0}
    make.save(tmp_path / "b", made)
    report = report_of(tmp_path / "b")
    found = {c.id: c.verdict for c in report.claims}
    assert found["T4.C4"] == "not run" and found["T4.C1"] == "inconclusive"
    assert cell(report, "dqn_wn", "relative_return", "enduro")["n"] == 0


def test_divergence_counts_as_nothing_scored(tmp_path):
    made = [make.record("dqn", "freeway_minatar", seed) for seed in range(3)]
    made += [make.record("dqn_bn", "freeway_minatar", seed, lost=seed == 1) for seed in range(3)]
    make.save(tmp_path, made)
    report = report_of(tmp_path)
    scores = [make.score("dqn_bn", "freeway_minatar", seed) for seed in (0, 2)]
    for metric, factor in (("best_return", 1.1), ("last_return", 1.0)):
        found = cell(report, "dqn_bn", metric, "freeway_minatar")
        assert (found["n"], found["diverged"]) == (3, 1)
        assert found["mean"] == pytest.approx(factor * sum(scores) / 3)
    assert page.by_seed(report, "dqn_bn", "freeway_minatar", "best_return")[1] == 0
    (training,) = page.section(report, {})["training"]
    assert training["ours"][2].endswith("(n = 2)")  # what it returned before is no return at the end


def test_a_runs_log_has_its_evaluations_and_no_pixels():
    lines = view.log(make.curves("dqn", "breakout_minatar", 0))
    assert len(lines) == view.LINES and not any("strip" in line for line in lines)
    assert lines[0].startswith("epoch 1 ") and lines[-1].startswith(f"epoch {make.EPOCHS} ")


def test_minatar_is_held_against_the_papers_settings_of_a_game(tmp_path):
    """It is not in the paper profile: Freeway's are those of Enduro."""
    made = [make.record("dqn", "freeway_minatar", 0)]
    make.save(tmp_path, made)
    loaded = store.load(tmp_path, None)
    cfg = {k: v for k, v in made[0]["config"].items() if k != "seed"}
    papers = {**cfg, "epochs": 200, "data": {**cfg["data"], "options": {"game": "enduro"}}}
    points = [{"row": "dqn", "column": c, "config": papers | {"gamma": g}}
              for c, g in (("breakout", 0.5), ("enduro", cfg["gamma"]))]  # fmt: skip
    told = loaded.grid["T4"] | {"profiles": loaded.grid["T4"]["profiles"] | {"paper": {"points": points}}}
    found = analyse(loaded.frame, told, {}, T4, "quick", 0).deviations
    lines = {line.key: (line.paper, line.ran) for line in found.itertuples()}
    assert lines["epochs"] == ("200", str(cfg["epochs"]))
    assert "gamma" not in lines and "config" not in lines
    assert set(found["column"]) == {"freeway_minatar"}


def test_the_page(built):
    root, pages = built
    report = report_of(root / "runs")
    text = pages["table_04.html"].text
    for words in ("the maximum over evaluations", "last tenth", "5 % random actions", "sticky actions",
                  "7357 A13", "read to say 7 things", "MinAtar Space Invaders (ours: minatar)"):  # fmt: skip
        assert words in text, words
    own = page.section(report, {})
    changes = {(c["game"], c["row"]): c for c in own["changes"]}
    found = changes["MinAtar Freeway", "WN"]
    ends = [mean(row, "freeway_minatar") for row in ("dqn", "dqn_wn")]
    assert found["last"].startswith(f"{ends[0]:.1f} → {ends[1]:.1f} ({ends[1] - ends[0]:+.1f}, +")
    assert found["best"].startswith(f"{1.1 * ends[0]:.1f} → {1.1 * ends[1]:.1f}") and found["best"].endswith(
        "n = 5)"
    )
    one = changes["Enduro", "BN"]["best"]
    assert one == "11.0 → 5.5 (-5.4; n = 1)"
    assert own["agents"] == ["DQN", "DQN + WN", "DQN + BN", "DQN + WN, standard start"]
    assert own["episodes"][0] == {
        "game": "Breakout", "plans": ["20,000", "50", "2,000"], "counts": ["5 to 7"] * 4,
    }  # fmt: skip
    terminal = tables.terminal(report)
    assert "MinAtar Asterix: ours on minatar (stand-in)" in terminal and "7375" in terminal


def test_returns_in_training_stand_beside_what_is_public_at_as_many_frames(built):
    """Five of fifty stretches are the last tenth; a million steps are so many frames of MinAtar, 4 million of
    Atari."""
    report = report_of(built[0] / "runs")
    lines = {line["game"]: line for line in page.section(report, {})["training"]}
    ours = [0.9 * make.score("dqn", "space_invaders_minatar", seed) for seed in range(5)]
    line = lines["MinAtar Space Invaders"]
    assert line["frames"] == "1" and line["public"] == "32 (DQN of MinAtar's authors)"
    assert line["ours"][0] == f"{np.mean(ours):.1f} ± {np.std(ours, ddof=1):.1f} (n = 5)"
    assert len(line["ours"]) == 4
    assert lines["MinAtar Freeway"]["public"] == ""  # of which a point at five million is known
    assert lines["Seaquest"]["frames"] == "4"
    assert lines["Seaquest"]["public"] == "284 (Dopamine, DQN), 348 (Dopamine, DQN (Adam))"
    assert lines["Seaquest"]["ours"][0] == f"{0.9 * make.score('dqn', 'seaquest', 0):.1f} (n = 1)"
    assert "284 (Dopamine, DQN), 348 (Dopamine, DQN (Adam))" in built[1]["table_04.html"].text


def test_scores_on_a_humans_scale_by_hand(built):
    report = report_of(built[0] / "runs")
    lines = {(h["game"], h["row"]): h["told"] for h in page.section(report, {})["human"]}
    assert lines["Breakout", "DQN"][:2] == ["1356.5", "1356.5"]  # 408.3 / 30.1
    assert lines["Enduro", "DQN + WN"][:2] == ["467.7", "467.7"]  # 1448 / 309.6
    assert lines["Seaquest", "DQN + WN"][:2] == ["36.2", "36.3"]  # 7288.6 and 7306.6 / 20113.6
    assert lines["Space Invaders", "Mnih et al. 2015"] == ["", "121.5", "", ""]  # 1827.1 / 1504.4
    assert page.normalised(report, "breakout", 1.7) == 0 and page.normalised(report, "breakout", 31.8) == 100
    best = 1.1 * make.score("dqn", "enduro", 0)
    assert lines["Enduro", "DQN"][2] == f"{100 * best / 309.6:.1f}"
    assert ("Space Invaders", "DQN + BN") in lines and len(lines) == 4 * 5


def described(svg):
    return svg.split("<desc")[1].split("</desc>")[0]


def test_figures(built):
    report = report_of(built[0] / "runs")
    groups = page.draw(report)
    assert [(g["title"], len(g["svgs"])) for g in groups] == [
        ("Learning curves", 9), ("Gain over the plain network", 2), ("An agent at play", 9)
    ]  # fmt: skip
    told = described(page.learning(report, "breakout"))
    assert "Last values: DQN: 3.98" in told and "Dopamine, DQN: 1.00: 1.60 (1.60 to 1.60)" in told
    assert "10.0: 21.5 (17.5 to 25.5)" in told and "Dopamine, DQN (Adam): 1.00: 1.80" in told
    line = page.curve(report, "breakout", "dqn")
    assert line.x[-1] == pytest.approx(4 * make.EPOCHS * make.EVERY / 1e6) and not line.low
    mine = page.curve(report, "space_invaders_minatar", "dqn_wn")
    assert mine.x[-1] == pytest.approx(make.EPOCHS * make.EVERY / 1e6)
    assert mine.y[-1] == pytest.approx(mean("dqn_wn", "space_invaders_minatar"))
    assert mine.low[-1] < mine.y[-1] < mine.high[-1]
    gain = described(page.gain_figure(report, list(make.ATARI), "atari"))
    assert "survey: Breakout: -1.71; Enduro: 15.8; Seaquest: 2.35; Space Invaders: 22.5." in gain
    assert "source paper: Breakout: -1.71; Enduro: 15.8; Seaquest: 2.60" in gain
    small = described(page.gain_figure(report, list(make.MINATAR), "minatar"))
    assert "survey" not in small and "ours: BN: Breakout" in small
    assert set(page.pictures(report)) == {"gain", "minatar", "atari"}


def test_public_points_stand_in_the_facts_alone():
    points = {(a.column, a.agent, a.x): (a.value, a.sd) for a in T4.anchors}
    assert points["seaquest", "Dopamine, DQN (Adam)", 10] == (876, 184)
    assert points["enduro", "Dopamine, DQN", 1] == (0, None)
    atari = [a for a in T4.anchors if a.column in make.ATARI]
    assert len(atari) == 4 * 2 * 3 and {a.x for a in atari} == {1, 4, 10}
    assert points["space_invaders_minatar", "DQN of MinAtar's authors", 1] == (32, None)


def test_frames_are_the_numbers_of_the_record(built):
    report = report_of(built[0] / "runs")
    for column, shape in (("enduro", (8, 42, 42)), ("freeway_minatar", (8, 10, 10))):
        found = page.strips(report, column)
        assert list(found) == ["DQN", "DQN + WN", "DQN + BN", "DQN + WN, standard start"]
        assert found["DQN"].shape == shape
        svg = page.at_play(report, column)
        assert svg.count("<image") == 4 * 8 and "Frames of an episode of each agent" in described(svg)
        pictures = [part.split('"')[0] for part in svg.split("base64,")[1:]]
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[1]))))
        frame = found["DQN"][1]
        if column == "enduro":
            assert (seen == frame).all()
        else:
            colour = [int(page.COLOURS[frame[0, 0]][i : i + 2], 16) for i in (1, 3, 5)]
            assert seen.shape == (10, 10, 3) and seen[0, 0].tolist() == colour
    assert figures.png(np.zeros((2, 3), np.uint8))


def test_the_legend_of_the_frames_has_the_objects_that_are_there():
    """One word for each of MinAtar's own channels, and only those that some frame shows."""
    for words in page.OBJECTS.values():
        frames = {"DQN": np.arange(len(words) + 1, dtype=np.uint8)[None, None]}
        svg = figures.frames("f", "t", "d", frames, page.COLOURS, words)
        assert svg.count("<rect") == len(words) and all(html.escape(word) in svg for word in words)
        frames["DQN"] = np.array([[[0, 2]]], np.uint8)
        svg = figures.frames("f", "t", "d", frames, page.COLOURS, words)
        assert svg.count("<rect") == 1 and f'fill="{page.COLOURS[2]}"' in svg and html.escape(words[1]) in svg
        assert "<rect" not in figures.frames("f", "t", "d", frames, page.COLOURS)
    minatar = pytest.importorskip("minatar", reason="MinAtar is an optional extra: make games")
    for column, words in page.OBJECTS.items():
        channels = minatar.Environment(column.removesuffix("_minatar")).env.channels
        assert len(words) == len(channels)
        for name, i in channels.items():  # the last part of its name there: left, bullet, fish, 3
            last = re.sub("guage", "gauge", re.sub(r"speed(\d)", r"speed_\1", name)).split("_")[-1]
            kin = {"gauge": "gauge" if "oxygen" in name else "aboard", "sub": "submarine"}
            assert kin.get(last, last) in words[i], name


def test_frames_that_do_not_fit_their_shape_are_left_out(tmp_path):
    found = make.record("dqn", "freeway_minatar")
    found["curves"]["strip"] = found["curves"]["strip"][:-1]
    make.save(tmp_path, [found])
    report = report_of(tmp_path)
    assert page.at_play(report, "freeway_minatar") == "" and page.learning(report, "freeway_minatar")
    assert page.gain_figure(report, ["freeway_minatar"], "minatar") == ""


def test_a_page_without_records_and_with_one_row(tmp_path):
    (tmp_path / "runs").mkdir()
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    text = check_site(tmp_path / "out")["table_04.html"].text
    assert "No records of this profile yet" in text and "467.7" in text
    make.write(tmp_path / "some", {"freeway_minatar": 1}, rows=["dqn"])
    site.build(tmp_path / "some", tmp_path / "out2", NOWHERE)
    check_site(tmp_path / "out2")


def test_snapshot_and_readme(tmp_path, built):
    measured = tmp_path / "measured"
    snapshot.snapshot(built[0] / "runs", measured, "T4")
    again, first = report_of(tmp_path / "nothing", measured), report_of(built[0] / "runs")
    for metric in ("best_return", "last_return", "mean_return", "relative_return"):
        mine, theirs = (cell(r, "dqn_wn", metric, "freeway_minatar") for r in (again, first))
        assert {k: mine[k] for k in ("mean", "low", "n")} == {k: theirs[k] for k in ("mean", "low", "n")}
    assert [(c.id, c.verdict, c.low) for c in again.claims] == [
        (c.id, c.verdict, c.low) for c in first.claims
    ]
    for column in ("enduro", "freeway_minatar"):
        assert page.at_play(again, column) == page.at_play(first, column)  # a seed is enough
        line = page.curve(again, column, "dqn")
        assert len(line.x) == 40 and line.y[-1] == pytest.approx(
            page.curve(first, column, "dqn").y[-1], rel=1e-3
        )
    runs = again.by_column["freeway_minatar"]
    kept = store.heavy(runs[runs["row"] == "dqn_wn"], "curves")
    assert [len(c["strip"]) for c in kept] == [800, 0, 0, 0, 0]
    assert all(c["strip_shape"] == [8, 10, 10] and len(c["test_return"]) == 40 for c in kept)
    file = tmp_path / "README.md"
    file.write_text(
        "x\n<!-- begin: python -m reports readme table=T4 -->\n<!-- end -->\ny\n", encoding="utf-8"
    )
    readme.update(file, measured, "T4")
    text = file.read_text(encoding="utf-8")
    assert "| Agent | Breakout: survey | ours | Enduro: survey |" in text and "MinAtar Asterix: ours" in text
    assert "best learning rate of a search not run" in text and "T4.M1" in text
    assert {p.name for p in (measured / "T4").glob("*.svg")} == {"gain.svg", "minatar.svg", "atari.svg"}


def test_a_small_part_of_the_published_training_is_named(tmp_path):
    """2 % of Atari's 50 million steps, 20 % of MinAtar's 5 million; in `quick` 40,000 of them."""
    made = make.write(tmp_path, {"space_invaders": 3, "space_invaders_minatar": 3}, rows=("dqn", "dqn_wn"))
    labels = {c.id: c.label for c in report_of(tmp_path).claims}
    assert labels["T4.C6"].endswith("early learning only: 2 % of the published steps")
    assert "early" not in labels["T4.M6"] and "early" not in labels["T4.C2"]  # of Breakout nothing ran
    for record in made:
        record["metrics"]["steps"] = 40_000.0
    make.save(tmp_path, made)
    assert {c.id: c.label for c in report_of(tmp_path).claims}["T4.M6"].endswith(
        "only: 0.8 % of the published steps"
    )
