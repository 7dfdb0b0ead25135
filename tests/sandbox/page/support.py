"""Reading the page as the server gives it."""

from __future__ import annotations

import re
from datetime import datetime
from html import unescape

from ..support import Bot, Clock

NASTY = "<img src=x onerror=alert(1)>&\"'{0}"


def text(html: str) -> str:
    """Return the words of a piece of HTML."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def markup(browser: Bot, name: str, query: str = "") -> str:
    """Return the HTML of one part of the page."""
    html: str = browser.get(f"/page/parts{query}").json[name]
    return html


def part(browser: Bot, name: str, query: str = "") -> str:
    """Return the words of one part of the page."""
    return text(markup(browser, name, query))


def rows(browser: Bot, name: str, query: str = "") -> list[str]:
    """Return the words of each row of a table's body, or item of a list."""
    html = markup(browser, name, query)
    body = html.partition("</thead>")[2] or html
    return [text(row) for row in re.findall(r"<(?:tr|li)[ >].*?</(?:tr|li)>", body, re.DOTALL)]


def local(clock: Clock, seconds: float = 0) -> str:
    """Return a time as the page shows it today."""
    return f"{datetime.fromtimestamp(clock.now + seconds).astimezone():%H:%M:%S}"
