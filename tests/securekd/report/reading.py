"""A page as its reader gets it: headings, tables, text, pictures; and what it would load."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Table:
    caption: str = ""
    headers: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def row(self, first: str, after: str = "") -> list[str]:
        """The row that begins with `first`, at or after the one that begins with `after`."""
        started = not after
        for row in self.rows:
            started = started or row[0].startswith(after)
            if started and row[0] == first:
                return row
        raise AssertionError(f"no row {first!r} after {after!r} in {self.caption!r}: {self.rows}")


class Page(HTMLParser):
    """Parses once; every attribute holds what was found in the order of the page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.headings: list[tuple[int, str]] = []
        self.tables: list[Table] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.pictures: list[str] = []
        self._cell: list[str] | None = None
        self._skip = 0
        self.feed(html)
        self.text = " ".join("".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "svg":
            self.pictures.append(dict(attrs).get("aria-label") or "")
        elif tag == "table":
            self.tables.append(Table())
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("caption", "th", "td", "h1", "h2", "h3", "h4"):
            self._cell = []
        elif tag in ("style", "script"):
            self._skip += 1
        elif tag in ("br", "small", "p", "dt", "dd", "li"):
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._skip -= 1
        if self._cell is None or tag not in ("caption", "th", "td", "h1", "h2", "h3", "h4"):
            return
        content, self._cell = " ".join("".join(self._cell).split()), None
        if tag == "caption":
            self.tables[-1].caption = content
        elif tag in ("th", "td"):
            self.tables[-1].rows[-1].append(content)
        else:
            self.headings.append((int(tag[1]), content))

    def handle_data(self, data: str) -> None:
        if self._skip:
            return
        self.pieces.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def table(self, caption: str) -> Table:
        """The table whose caption begins so."""
        return next(t for t in self.tables if t.caption.startswith(caption))

    def section(self, heading: str) -> str:
        """The text from a heading to the next one of the second level."""
        seconds = [name for level, name in self.headings if level == 2]
        following = seconds[seconds.index(heading) + 1 :]
        start = self.text.index(heading)
        return self.text[start : self.text.index(following[0], start)] if following else self.text[start:]

    def loads(self) -> list[str]:
        """Every address that a browser would fetch."""
        names = ("src", "href", "xlink:href", "data", "poster", "srcset", "action")
        found = [attrs[name] or "" for _, attrs in self.tags for name in names if name in attrs]
        return [address for address in found if not address.startswith(("#", "data:"))]
