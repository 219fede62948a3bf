"""The text of HTML, as a reader sees it, without its marks."""

from html.parser import HTMLParser

UNSEEN = ("script", "style", "template")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._unseen += tag in UNSEEN

    def handle_endtag(self, tag: str) -> None:
        if tag in UNSEEN:
            self._unseen = max(0, self._unseen - 1)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def text_of_html(html: str) -> str:
    """Return the text of a piece of HTML: marks go, entities become characters.

    Nothing is put between elements, so lines are those of the source, as with ``get_text()`` of
    BeautifulSoup, which the OpenThoughts pipeline used. Comments, scripts and styles are left out.
    White space at both ends goes. Broken marks are read as far as they can be.

    >>> text_of_html("<p>Is 2 &lt; <b>3</b>?</p>")
    'Is 2 < 3?'
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return "".join(reader.parts).strip()
