"""The pages in a real browser: nothing on the console, nothing from outside, profile switch, dark, narrow.

A script at the end of a copy of the page looks around and leaves what it saw in the document, which headless
Chromium prints. The browser may resolve no name at all, so nothing leaves the machine.
"""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import site
from tests.reports import synthetic

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: install the package chromium to run this"),
]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
    "--disable-extensions", "--enable-logging=stderr", "--virtual-time-budget=2000",
]  # fmt: skip
LOOK = """
<script>
setTimeout(function () {
  var seen = {};
  %s
  seen.requests = performance.getEntriesByType("resource").map(function (e) { return e.name; });
  seen.width = document.documentElement.scrollWidth;
  seen.window = innerWidth;
  var out = document.createElement("pre");
  out.id = "seen"; out.textContent = JSON.stringify(seen);
  document.body.appendChild(out);
}, 300);
</script>
"""
Probe = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    synthetic.write_grid(root / "runs")
    grid = json.loads((root / "runs/T3/grid.json").read_text())
    grid["profiles"]["cpu"] = synthetic.grid(epochs=5)["profiles"]["quick"]
    (root / "runs/T3/grid.json").write_text(json.dumps(grid))
    records = [*synthetic.cells(2), *synthetic.variants(1)]
    records += synthetic.cells(1, 5, ["mnist"], profile="cpu")
    records.append(synthetic.record("a1", "mnist", 5, status="failed"))
    synthetic.write(root / "runs", records)
    nowhere = root / "none"
    site.build(root / "runs", root / "out", nowhere)
    query = {"table": "T3", "x": "alpha", "y": "test_error", "x2": "unit", "data.name": "mnist5k"}
    site.build_sweep(root / "runs", root / "out", nowhere, query)
    return root / "out"


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    def look(
        page: Path, script: str = "", fragment: str = "", size: str = "1300,900", dark: bool = False
    ) -> dict[str, Any]:
        copy = page.with_name(f"probe_{page.name}")
        copy.write_text(
            page.read_text(encoding="utf-8").replace("</body>", LOOK % script + "</body>"), encoding="utf-8"
        )
        extra = [
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={size}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ]
        extra += ["--blink-settings=preferredColorScheme=0"] if dark else []
        words = [str(BROWSER), *FLAGS, *extra, "--dump-dom", copy.as_uri() + fragment]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        finally:
            copy.unlink()
        found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.S)
        assert found, done.stderr[-2000:]
        seen: dict[str, Any] = json.loads(html.unescape(found[1]))
        seen["console"] = re.findall(r":CONSOLE[:(].*", done.stderr)
        return seen

    return look


def test_the_probe_sees_errors_and_requests(tmp_path: Path, probe: Probe) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><body><img src="http://example.invalid/x.png"><script>nosuch();</script></body>'
    )
    seen = probe(page)
    assert any("nosuch is not defined" in line for line in seen["console"])
    assert any("example.invalid" in name for name in seen["requests"])


def test_every_page_is_quiet_and_asks_for_nothing(out: Path, probe: Probe) -> None:
    names = sorted(path.name for path in out.glob("*.html"))
    expected = {"index.html", "claims.html", "audit.html", "methods.html", "method_batch.html"}
    assert expected | {"table_03.html", "table_03_runs.html", "table_03_runs_1.html"} < set(names) and any(
        "sweep" in n for n in names
    )
    for name in names:
        seen = probe(out / name)
        assert seen["console"] == [] and seen["requests"] == [], name
        assert seen["width"] <= seen["window"], f"{name} scrolls sideways"


SHOWN = """
  var shown = function () {
    return ["quick", "cpu"].filter(function (id) {
      return getComputedStyle(document.getElementById(id)).display !== "none";
    });
  };
"""


def test_profile_switch_by_click_and_by_address(out: Path, probe: Probe) -> None:
    script = (
        SHOWN
        + """
      seen.first = shown();
      document.querySelector("label[for=tab-cpu]").click();
      seen.second = shown();
    """
    )
    seen = probe(out / "table_03.html", script)
    assert seen["first"] == ["quick"] and seen["second"] == ["cpu"]
    assert probe(out / "table_03.html", SHOWN + "seen.first = shown();", fragment="#cpu")["first"] == ["cpu"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_dark_and_narrow(out: Path, probe: Probe, dark: bool) -> None:
    script = """
      seen.ground = getComputedStyle(document.body).backgroundColor;
      seen.letters = getComputedStyle(document.querySelector("svg.plot text")).fill;
      seen.pictures = document.querySelectorAll("svg.plot").length;
      seen.wide = Array.from(document.querySelectorAll("section.pane > p, section.pane > dl, h1, h2")).filter(
        function (e) { return e.getBoundingClientRect().right > innerWidth + 1; }).length;
    """
    seen = probe(out / "table_03.html", script, size="500,900", dark=dark)  # Chromium has no narrower window
    assert seen["ground"] == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    assert seen["letters"] == ("rgb(230, 232, 235)" if dark else "rgb(29, 33, 38)")
    assert seen["pictures"] >= 10 and seen["wide"] == 0
    assert seen["width"] <= seen["window"] and seen["console"] == []


def test_link_to_a_run_opens_its_details(out: Path, probe: Probe) -> None:
    failed = synthetic.record("a1", "mnist", 5, status="failed")["run_id"]
    script = """
      var open = Array.from(document.querySelectorAll("details[open] pre"));
      seen.open = open.map(function (p) { return p.textContent; });
    """
    seen = probe(out / "table_03_runs_1.html", script, fragment=f"#run-{failed}")
    assert len(seen["open"]) == 2 and "RuntimeError" in seen["open"][0]


def test_runs_sort_and_filter(out: Path, probe: Probe) -> None:
    script = """
      var table = document.getElementById("runs"), heads = table.tHead.rows[0].cells;
      var texts = function (i) {
        return Array.from(table.tBodies[0].rows).filter(function (r) { return !r.hidden; })
          .map(function (r) { return r.cells[i].textContent; });
      };
      heads[7].querySelector("button").click();
      seen.up = texts(7).map(parseFloat); seen.said = heads[7].getAttribute("aria-sort");
      heads[7].querySelector("button").click();
      seen.down = texts(7).map(parseFloat);
      var form = document.querySelector("form.filter"), picks = form.querySelectorAll("select");
      var put = function (field, value) { field.value = value; form.dispatchEvent(new Event("input")); };
      seen.labels = Array.from(form.querySelectorAll("label")).map(function (l) {
        return l.firstChild.textContent;
      });
      put(picks[1], "=failed");
      seen.failed = texts(2); seen.told = form.querySelector("output").textContent;
      put(picks[1], ""); put(form.querySelector("input"), "cpu  mnist");
      seen.words = texts(1);
      seen.tabbed = Array.from(heads).every(function (h) {
        return h.querySelector("button").tabIndex === 0;
      });
    """
    seen = probe(out / "table_03_runs.html", script)
    scores = [x for x in seen["up"] if x is not None]
    assert scores == sorted(scores) and len(scores) > 50 and seen["said"] == "ascending"
    assert seen["up"][len(scores) :] == [None]  # the failed run has no score and stands last, both ways
    assert seen["down"][: len(scores)] == scores[::-1] and seen["down"][-1] is None
    assert seen["failed"] == ["failed"] and seen["told"] == f"1 of {len(seen['up'])}"
    assert seen["words"] == ["cpu"] * 10 and seen["tabbed"]
    assert seen["labels"][0] == "Find " and "Profile " in seen["labels"]


def test_the_ledger_filters_by_verdict(out: Path, probe: Probe) -> None:
    script = """
      var form = document.querySelector("form.filter"), rows = document.querySelectorAll("#ledger tbody tr");
      form.querySelector("input").value = "T3.C"; form.dispatchEvent(new Event("input"));
      seen.shown = Array.from(rows).filter(function (r) { return !r.hidden; }).length; seen.all = rows.length;
    """
    seen = probe(out / "claims.html", script)
    assert seen["shown"] == 9 and seen["all"] > 141 and seen["width"] <= seen["window"]


CONTRAST = """
  // WCAG: 4.5 between a text's colour and what it stands on, 3 for large or bold letters.
  function channel(c) { c /= 255; return c <= 0.03928 ? c / 12.92 : Math.pow((c + 0.055) / 1.055, 2.4); }
  function light(c) { return 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]); }
  function numbers(text) { return text.match(/[\\d.]+/g).map(Number); }
  function ground(e) {
    for (; e; e = e.parentElement) {
      var c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) { return c; }
    }
    return [255, 255, 255];
  }
  seen.weak = [];
  document.querySelectorAll("body *").forEach(function (e) {
    var own = Array.from(e.childNodes).some(function (n) {
      return n.nodeType === 3 && n.textContent.trim();
    });
    if (!own || !e.checkVisibility() || e.closest("script, style")) { return; }
    var style = getComputedStyle(e), svg = e.closest("svg");
    var a = light(numbers(svg ? style.fill : style.color)), b = light(ground(svg || e));
    var ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) {
      seen.weak.push(e.tagName + " " + ratio.toFixed(2) + " " + e.textContent.slice(0, 30));
    }
  });
"""


def test_the_contrast_check_sees_faint_letters(tmp_path: Path, probe: Probe) -> None:
    page = tmp_path / "faint.html"
    page.write_text(
        '<!doctype html><body><p style="color:#888">faint</p><p style="color:#666">fine</p></body>'
    )
    assert probe(page, CONTRAST)["weak"] == ["P 3.54 faint"]  # by hand: #888 is 3.54, #666 is 5.74


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    "name", ["index.html", "table_03.html", "claims.html", "audit.html", "methods.html", "table_03_runs.html"]
)
def test_letters_stand_out_as_wcag_aa_asks(out: Path, probe: Probe, name: str, dark: bool) -> None:
    assert probe(out / name, CONTRAST, dark=dark)["weak"][:8] == []
