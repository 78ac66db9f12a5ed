"""What a page would run or fetch: for tests that free text in it stays text."""

from html.parser import HTMLParser

HOSTILE = "=1+1<script>alert(1)</script><img src=x onerror=alert(2)>[a](javascript:alert(3))\x1b[31m\u202e|`x`"
INERT_TAGS = {"html", "head", "meta", "title", "style", "body", "nav", "h1", "h2", "h3", "h4", "p", "div", "span", "a",
              "img", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "code", "pre", "em",
              "strong", "i", "b", "br", "hr", "blockquote", "details", "summary"}


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.live: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in INERT_TAGS:
            self.live.append(f"<{tag}>")
        for name, value in attrs:
            target = (value or "").strip().lower()
            fetched = name == "src" and (":" in target or target.startswith("//")) and target[:11] != "data:image/"
            run = name.startswith("on") or name in ("href", "src") and target.startswith("javascript:")
            if fetched or run:
                self.live.append(f"{name}={value}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def live_markup(page: str) -> list[str]:
    """Elements and attributes of a page that run something or fetch something."""
    return _parsed(page).live


def text_of(page: str) -> str:
    """What a reader of the page sees."""
    return "".join(_parsed(page).text)


def _parsed(page: str) -> _Parser:
    parser = _Parser()
    parser.feed(page)
    parser.close()
    return parser
