"""Table 10 in the reports: printed figures, claims, gains and pages on generated runs."""

import json
import statistics
from pathlib import Path

import pytest

from reports import claims, published, site, store
from reports.analysis import analyse
from reports.claims import table_10
from reports.deviations import deviations
from reports.pages import table_10 as page
from tests.reports import synthetic
from tests.reports.html_checks import check_site

T10 = published.load("T10")
CLAIMS = claims.of("T10")
NOWHERE = Path("does-not-exist")
WORDS = {"a": "amazon", "d": "dslr", "w": "webcam", "c": "caltech10"}
# row -> accuracy on aw, dw, wd, ad, da, wa; a seed adds to all, to each row a little differently
OURS = {
    "source": (60, 90, 95, 62, 50, 48), "coral": (62, 91, 96, 64, 51, 49),
    "source_svm": (20, 20, 20, 20, 20, 20), "source_zscore": (59, 89, 94, 61, 49, 47),
    "sa": (55, 88, 92, 57, 45, 43), "gfk": (56, 88, 92, 58, 45, 43), "adabn": (72, 92, 96, 74, 53, 51),
    "adabn_coral": (75, 94, 98, 77, 56, 54),
    "adabn_64": (68,), "adabn_32": (50,), "adabn_16": (45,),
}  # fmt: skip


def record(row, column, accuracy, seed, name="office_caltech"):
    method = row.rstrip("0123456789").rstrip("_")
    images = int(row.rsplit("_", 1)[1]) if row[-1].isdigit() else None
    options = {"source": WORDS[column[0]], "target": WORDS[column[1]]}
    cfg = {"table": "T10", "data": {"name": name, "val_fraction": 0.1, "limit_train": None,
                                    "limit_eval": None, "options": options},
           "model": {"name": "domain_net", "width": 1.0, "weights": None},
           "norm": {"name": "batch", "options": {}},
           "optimizer": {"name": "SGD", "lr": 0.05, "l2": 0.0, "options": {}}, "method": method, "epochs": 2,
           "images": images, "batch_size": 64, "seed": seed}  # fmt: skip
    out = synthetic.record("a1", "mnist", seed, table="T10", status="finished")
    value = accuracy + seed + 0.1 * ((list(OURS).index(row) * 7 + seed * 3) % 5)
    curves = {
        "epoch": [1, 2],
        "train_loss": [2.0, 1.0],
        "val_error": [9.0, 8.0],
        "test_accuracy": [None, value],
    }
    metrics = {"test_accuracy": value, "val_error": 8.0, "chance": 10.0}
    if row == "adabn":
        curves |= {"divergence_before": [0.5, 0.4], "divergence_after": [0.1, 0.05], "plane_rows": [2, 2]}
        curves |= {f"plane_{w}": [0.0, 1, 2, 3, 4, 5, 6, 7] for w in ("before", "after")}
        metrics |= {"shallow_before": 0.5 + 0.1 * seed, "deep_before": 0.4 + 0.05 * seed,
                    "shallow_after": 0.1 - 0.01 * seed, "deep_after": 0.05}  # fmt: skip
    return {
        **out, "run_id": synthetic.key_of({"run": cfg, "data": "f" * 16}), "config": cfg, "curves": curves,
        "cell": {"row": row, "column": column}, "metrics": metrics, "wrong": None,
        "data": {**out["data"], "name": name, "n_test": 1_000_000, "error": "error",
                 "notes": []},
    }  # fmt: skip


def write(runs, seeds=3, rows=tuple(OURS), name="office_caltech"):
    made, points = [], []
    for row in rows:
        # ac: a column of ours, which the source does not have
        for column, accuracy in zip(
            (*table_10.SIX, "ac"), (*OURS[row][:6], *([40] if len(OURS[row]) == 6 else [])), strict=False
        ):
            made += [record(row, column, accuracy, seed, name) for seed in range(seeds)]
            cfg = {k: v for k, v in made[-1]["config"].items() if k != "seed"}
            points.append({"row": row, "column": column, "config": cfg})
    synthetic.write(runs, made)
    grid = {"schema": 1, "table": "T10", "code": synthetic.CODE, "primary": {}, "norm": "batch",
            "profiles": {"quick": {"seeds": list(range(seeds)), "points": points}}}  # fmt: skip
    (runs / "T10").mkdir(parents=True, exist_ok=True)
    (runs / "T10" / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
    return made


def report_of(root):
    loaded = store.load(root, None)
    return analyse(loaded.frame, loaded.grid.get("T10", {}), loaded.paper.get("T10", {}), T10, "quick", 0)


def test_nothing_of_the_survey_is_made_up():
    assert all(figure.survey is None for figure in T10.figures.values())
    assert {claim.survey for claim in T10.claims} == {"n/a"} and not T10.metric("test_accuracy").comparable


@pytest.mark.parametrize("claim", T10.claims, ids=lambda c: c.id)
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T10, "source")
    assert verdict == claim.source and (margin is None) == (verdict == "n/a")


def test_printed_averages_are_the_sources():
    """Means of the printed transfers, within the tenth to which the source rounds."""
    cells = claims.Printed(T10, "source")
    known = {"alexnet": 70.1, "ddc": 70.6, "dan": 72.9, "deep_coral": 72.1, "source": 75.5, "sa": 75.3,
             "gfk": 74.7, "lssa": 74.9, "coral": 76.3, "adabn": 76.7, "adabn_coral": 77.2}  # fmt: skip
    for row, wanted in known.items():
        assert table_10.average(cells, row, table_10.SIX) == pytest.approx(wanted, abs=0.1), row


def test_verdicts_gains_and_page_on_generated_runs(tmp_path):
    write(tmp_path / "runs")
    report = report_of(tmp_path / "runs")
    found = {c.id: c for c in report.claims}
    assert {k: c.verdict for k, c in found.items()} == {
        **dict.fromkeys((f"T10.C{i}" for i in (1, 2, 3, 4, 5, 6, 9, 10)), "supported"),
        **dict.fromkeys(("T10.C7", "T10.C8", "T10.C12"), "not run"),
        "T10.C11": "contradicted",
    }
    assert found["T10.C6"].margin == pytest.approx(16 / 6, abs=0.3)
    assert not any("at chance" in c.label for c in report.claims)
    assert sum(page.gains(report, "adabn").values()) / 3 == pytest.approx(
        (12 + 2 + 1 + 12 + 3 + 3) / 6, abs=0.3
    )
    assert page.printed_gain(report, "adabn") == pytest.approx(6.9 / 6)
    assert page.printed_gain(report, "dann") == pytest.approx((5.7 - 1.4 - 5.3) / 3)
    assert [len(group["svgs"]) for group in page.draw(report)] == [1, 8, 1, 2, 2]
    own = page.section(report, {})
    told = {g["row"]: g for g in own["gains"]}
    assert told["AdaBN"]["printed"] == "+1.1" and own["apart"][0]["before_printed"] == "0.0716"
    assert told["AdaBN"]["svm"] == ""  # classifies as the source-only row does
    over_svm = page.gains(report, "coral", "source_zscore")
    assert sum(over_svm.values()) / 3 == pytest.approx((3 + 2 + 2 + 3 + 2 + 2) / 6, abs=0.4)
    assert told["CORAL"]["svm"].startswith(f"{sum(over_svm.values()) / 3:+.1f} (")
    means = {a["row"]: a for a in own["averages"]}
    values = [record("adabn", "aw", sum(OURS["adabn"]) / 6, s)["metrics"]["test_accuracy"] for s in range(3)]
    wanted = f"{sum(values) / 3:.1f} ± {statistics.stdev(values):.1f}"
    assert means["AdaBN"]["ours"] == [wanted, ""] and means["AdaBN"]["printed"] == ["76.7", "83.6"]
    assert means["RevGrad / DANN (there AlexNet)"]["printed"] == ["", ""]
    assert own["blocks"] == ["six transfers (6)", "pairs with Caltech (1)"]
    block = {b["row"]: b["ours"] for b in own["by_block"]}
    assert block["AdaBN"][0] == told["AdaBN"]["ours"] and block["AdaBN"][1].endswith("n = 3")
    heads = dict(page.readme_columns(report))
    assert heads["mean of the six: ours"]["adabn"] == wanted and "mean of two sources: ours" not in heads
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    assert page.domains(report)["office_caltech"]["amazon", "caltech10"] == "ac"
    text = check_site(tmp_path / "out")["table_10.html"].text
    assert "missing from the text at hand" in text and "Transductive" in text


def test_digits_say_nothing_of_domains_by_name(tmp_path):
    """Which digits stand for Amazon is arbitrary; averages over all transfers are another matter."""
    write(tmp_path, name="digit_domains")
    found = {c.id: c for c in report_of(tmp_path).claims}
    for claim in ("T10.C4", "T10.C5"):
        assert found[claim].verdict == "not comparable"
        assert all("has not the domains" in part.why for part in found[claim].components)
    assert found["T10.C1"].verdict == "supported"


def test_a_deviation_in_a_column_that_nobody_printed(tmp_path):
    write(tmp_path, rows=("source", "adabn"))
    runs = report_of(tmp_path).runs
    key = runs["paper"].astype(object).iloc[0]
    aw = record("source", "aw", 60, 0)["config"]
    found = deviations(runs, {}, {key: {k: v for k, v in aw.items() if k != "seed"}}, T10)
    targets = found[found["key"] == "data.options.target"]
    assert sorted(targets["ran"]) == ["amazon", "caltech10", "dslr"] and "ac" in set(targets["column"])


def test_a_page_without_records_and_with_one_row(tmp_path):
    (tmp_path / "runs").mkdir()
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    assert "No records of this profile yet" in check_site(tmp_path / "out")["table_10.html"].text
    write(tmp_path / "some", rows=("source",))
    site.build(tmp_path / "some", tmp_path / "out2", NOWHERE)
    check_site(tmp_path / "out2")
    assert page.gain_figure(report_of(tmp_path / "some")) == ""


def test_results_on_networks_of_two_machines_are_told(tmp_path):
    made = write(tmp_path, seeds=3)
    for r in made:
        r["weights"] = f"{r['cell']['column']}{r['config']['seed']}".ljust(16, "0")
    synthetic.write(tmp_path, made)
    assert page.mixed(report_of(tmp_path)) == []
    again = next(r for r in made if r["cell"] == {"row": "adabn", "column": "aw"})
    again["weights"] = "e" * 16
    synthetic.write(tmp_path, made)
    assert page.mixed(report_of(tmp_path)) == ["A→W"]
