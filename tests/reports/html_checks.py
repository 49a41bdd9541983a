"""Checks of built pages with the standard library's parser: structure, ids, links, nothing from outside."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

VOID = {"meta", "link", "input", "br", "hr", "img", "col", "source", "wbr", "base"}
LOADS = {
    *((tag, "src") for tag in ("img", "script", "source", "iframe", "video", "audio")),
    *((tag, key) for tag in ("use", "image") for key in ("href", "xlink:href")),
    ("link", "href"),
    ("object", "data"),
}


@dataclass
class Page(HTMLParser):
    path: Path
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)  # cells' texts by table and row
    tags: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.where: list[list[list[str]]] = []
        self.raw = self.path.read_text(encoding="utf-8")
        self.feed(self.raw)
        self.close()
        if self.open:
            self.problems.append(f"never closed: {self.open}")
        if len(self.ids) != len(set(self.ids)):
            self.problems.append(f"ids twice: {sorted({i for i in self.ids if self.ids.count(i) > 1})[:5]}")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attributes)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        self.loads += [
            str(v) for k, v in attributes if (tag, k) in LOADS and v and not v.startswith(("#", "data:"))
        ]
        self.loads += re.findall(r"url\((?!#|\"#|data:)[^)]*\)", str(given.get("style")))
        if tag == "svg" and not (given.get("aria-label") or given.get("aria-labelledby")):
            self.problems.append("a picture without a name")
        for key in ("aria-labelledby", "for"):
            for name in (given.get(key) or "").split():
                if f'id="{name}"' not in self.raw:
                    self.problems.append(f"{key} names {name}, which is not there")
        if tag == "table":
            self.tables.append([])
            self.where.append(self.tables[-1])
        if tag == "tr" and self.where:
            self.where[-1].append([])
        if tag in ("td", "th") and self.where:
            self.where[-1][-1].append("")
        if tag == "br":
            self.handle_data(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> at line {self.getpos()[0]} closes {self.open[-1:]}")
        if tag in self.open:
            while self.open.pop() != tag:
                pass
        if tag == "table" and self.where:
            self.where.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "script" in self.open:
            self.loads += re.findall(r"@import[^;]*|url\((?!#|data:)[^)]*\)|fetch\(|XMLHttpRequest", data)
            return
        self.text += data
        if self.where and self.where[-1] and self.where[-1][-1] and {"td", "th"} & set(self.open):
            self.where[-1][-1][-1] += data


def check_site(out: Path) -> dict[str, Page]:
    """Parse every page of a site and assert what must hold for all; returns them by file name."""
    pages = {path.name: Page(path) for path in sorted(out.glob("*.html"))}
    assert "index.html" in pages
    for name, page in pages.items():
        assert not page.problems, f"{name}: {page.problems[:5]}"
        assert not page.loads, f"{name} loads {page.loads[:5]}"
        assert page.tags.count("h1") == 1 and page.tags.count("main") == 1, name
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https", f"{name} links to {link}"  # a citation, followed by hand only
                continue
            target = out / unquote(parts.path) if parts.path else page.path
            assert target.is_file(), f"{name} links to {link}, which is not there"
            if parts.fragment:
                assert parts.fragment in pages[target.name].ids, f"{name}: no {link}"
    return pages
