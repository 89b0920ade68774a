"""A page as its reader finds it: its text, and what it would run or load."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

# What may hold the address of something outside.
_ADDRESSES = {"src", "href", "data", "action", "srcset", "poster", "background", "xlink:href", "formaction"}
# Within a line of text; all else stands apart from what is beside it.
_INLINE = {"bdi", "code", "strong", "b"}
_VOID = {"meta", "br", "hr", "img", "input", "link"}


@dataclass
class Page:
    """What stands in a page."""

    text: str = ""
    tags: list[str] = field(default_factory=list)
    # Attributes that would load, run or send something.
    active: list[str] = field(default_factory=list)
    # Tags that are not closed in order.
    unbalanced: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append(tag)
        self._set_apart(tag)
        self.page.active += [f"{tag} {name}" for name, _ in attrs if name in _ADDRESSES or name.startswith("on")]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        self._set_apart(tag)
        if not self._open or self._open.pop() != tag:
            self.page.unbalanced.append(tag)

    def _set_apart(self, tag: str) -> None:
        if tag not in _INLINE:
            self.page.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self._open and "script" not in self._open:
            self.page.text += data

    def close(self) -> None:
        super().close()
        self.page.unbalanced += self._open
        self.page.text = " ".join(self.page.text.split())


def read_page(html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page
