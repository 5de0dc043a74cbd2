"""Reads a page as a browser would: are its tags balanced, does it load anything, what does it say?"""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}
LOADING = {"src", "href", "srcset", "poster", "data", "action", "xlink:href"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        problems: unbalanced tags, repeated ids, links to nowhere.
        loads: addresses that a browser would fetch.
        words: the visible text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.problems: list[str] = []
        self.loads: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self._words: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"never closed: {tag}" for tag in self.open]
        self.problems += [f"id twice: {name}" for name in set(self.ids) if self.ids.count(name) > 1]
        for tag, attributes in self.tags:
            target = attributes.get("href") or ""
            if tag == "a" and target.startswith("#") and target[1:] not in self.ids:
                self.problems.append(f"leads nowhere: {target}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if len(attributes) < len(attrs):
            self.problems.append(f"attribute twice: {attrs}")
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        for name in LOADING & attributes.keys():
            value = attributes[name] or ""
            if not value.startswith(("#", "data:")):
                self.loads.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"closed out of order: {tag}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self._words.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self._words).split())
