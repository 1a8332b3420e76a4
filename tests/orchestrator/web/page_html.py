"""What the tests of the page read it with: its addresses, and its elements."""

from __future__ import annotations

from html.parser import HTMLParser

PAGES = (
    "/",
    "/runs",
    "/runs?q=ma22",
    "/runs/ma22b001",
    "/files",
    "/files?q=ma22b001",
    "/files?status=good",
    "/files?status=in progress",
    "/files?step=convert&state=ready",
    "/files?daq=daq1",
    "/documents/ma22b001_006",
    "/failed",
    "/failed?step=proc1&error_class=data",
    "/bad",
    "/jobs",
    "/chain",
    "/api",
)


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def links(self) -> list[str]:
        return [a["href"] or "" for t, a in self.elements if t == "a" and "href" in a]
