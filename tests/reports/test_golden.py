"""The whole way from a committed set of records to Markdown and CSV, compared letter by letter.

After a wanted change: `python -m tests.reports.test_golden` writes both files anew; read the difference.
"""

from reports import published, store, tables
from reports.analysis import analyse
from tests.reports.fixtures.make_golden import GOLDEN, golden_records, line


def report():
    loaded = store.load(GOLDEN / "store")
    facts = published.load("T3")
    return analyse(loaded.frame, loaded.grid["T3"], loaded.paper["T3"], facts, "quick", loaded.damaged["T3"])


def test_markdown():
    assert tables.markdown(report()) == (GOLDEN / "report.md").read_text(encoding="utf-8")


def test_csv():
    assert tables.csv(report()) == (GOLDEN / "report.csv").read_text(encoding="utf-8")


def test_the_committed_records_are_the_generators():
    """Its hashes are computed as the contract says, by code that is neither the reports' nor the runner's."""
    shard = (GOLDEN / "store" / "T3" / "shards" / "p1" / "records.jsonl").read_text(encoding="utf-8")
    assert shard.splitlines() == [line(record) for record in golden_records()[:-2]]


if __name__ == "__main__":
    (GOLDEN / "report.md").write_text(tables.markdown(report()), encoding="utf-8")
    (GOLDEN / "report.csv").write_text(tables.csv(report()), encoding="utf-8")
