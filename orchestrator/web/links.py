"""Addresses of the pages. Ids and run names come from outside: every part is percent-encoded, slashes too."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode


def _part(text: Any) -> str:
    return quote(str(text), safe="", errors="replace")


class Links:
    """Addresses below ``base``, the path under which a reverse proxy shows the page (empty without one)."""

    def __init__(self, base: str = "") -> None:
        self.base = base.rstrip("/")

    def to(self, path: str, **query: Any) -> str:
        """``path`` with those parts of the query that are not empty."""
        wanted = {k: v for k, v in query.items() if v not in (None, "")}
        return f"{self.base}{path}" + (f"?{urlencode(wanted, errors='replace')}" if wanted else "")

    def document(self, id: Any) -> str:
        """A document's page. Browsers resolve ``.`` and ``..`` even when encoded: these go into the query."""
        return self.to("/documents/", id=id) if str(id) in (".", "..", "") else self.to(f"/documents/{_part(id)}")

    def run(self, name: Any) -> str:
        """A run's page."""
        return self.to("/runs/", name=name) if str(name) in (".", "..", "") else self.to(f"/runs/{_part(name)}")

    def plot(self, id: Any, step: Any, index: int) -> str:
        """A picture."""
        return self.to(f"/plots/{_part(id)}/{_part(step)}/{int(index)}")

    def log(self, id: Any, step: Any) -> str:
        """A step's log."""
        return self.to(f"/logs/{_part(id)}/{_part(step)}")

    def job(self, name: Any) -> str:
        """A batch job's page."""
        return self.to(f"/jobs/{_part(name)}")

    def versions(self, id: Any) -> str:
        """The versions of a document."""
        return self.to(f"/conflicts/{_part(id)}")

    def gather(self, name: Any) -> str:
        """A gather's page."""
        return self.to(f"/gathers/{_part(name)}")

    def act(self, what: str, **query: Any) -> str:
        """The form of an operation on documents."""
        return self.to(f"/act/{_part(what)}", **query)

    def control(self, what: str, **query: Any) -> str:
        """The form of pausing, draining, ... a step, a farm or a site."""
        return self.to(f"/control/{_part(what)}", **query)

    def operation(self, id: Any) -> str:
        """What is known of an operation."""
        return self.to(f"/operations/{_part(id)}")

    def files(self, **query: Any) -> str:
        """A filtered list of documents."""
        return self.to("/files", **query)

    def static(self, name: str, version: str) -> str:
        """A file of ours; the version makes browsers fetch it anew after an upgrade."""
        return self.to(f"/static/{name}", v=version)
