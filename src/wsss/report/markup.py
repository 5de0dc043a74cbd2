"""HTML built from nested calls, so that tags are always closed and text from data is always escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

VOID: Final = frozenset({"img", "meta", "br", "hr", "link", "input"})


class Html(str):
    """Text that is already markup."""

    __slots__ = ()


def text(value: object) -> Html:
    """`value` as text that no browser takes for markup; `Html` stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """One element with its children.

    Args:
        name: tag.
        children: markup (`Html`), or anything else to be shown as text; None is left out.
        attributes: a trailing underscore is dropped (`class_`), others become hyphens; None and False leave
            the attribute out, True gives it no value.

    Example:
        >>> element("p", "1 < 2", class_="note")
        '<p class="note">1 &lt; 2</p>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        parts.append(label if value is True else f'{label}="{html.escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if name in VOID else f"{opening}{together(children)}</{name}>")


def together(children: Iterable[object], separator: str = "") -> Html:
    """Children one after the other; None is left out.

    Example:
        >>> together(["a", element("b", "&"), None], ", ")
        'a, <b>&amp;</b>'
    """
    return Html(separator.join(text(child) for child in children if child is not None))


def table(
    head: Iterable[object], rows: Iterable[Iterable[object]], *, caption: object = None, class_: str = ""
) -> Html:
    """A table whose first column names its rows, in a container of its own that scrolls.

    Args:
        head: column headings, as text or whole `th` elements.
        rows: cells, as text or whole `th` and `td` elements.
        caption: says what the table shows.
        class_: for the style.
    """
    heading = element("tr", *(_cell(cell, "th", scope="col") for cell in head))
    body = [
        element(
            "tr",
            *(
                _cell(cell, "td") if place else _cell(cell, "th", scope="row")
                for place, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    shown = element(
        "table",
        None if caption is None else element("caption", caption),
        element("thead", heading),
        element("tbody", *body),
        class_=class_ or None,
    )
    return scrolling(shown, "Table")


def scrolling(content: Html, label: str) -> Html:
    """A region that scrolls sideways on its own, by keyboard too."""
    return element(
        "div", content, class_="scroll", role="region", aria_label=f"{label}, scrolls sideways", tabindex="0"
    )


def details(summary: object, *children: object, is_open: bool = False) -> Html:
    """What a reader may unfold."""
    return element("details", element("summary", summary), *children, open=is_open)


def _cell(cell: object, name: str, **attributes: object) -> Html:
    is_whole = isinstance(cell, Html) and cell.startswith(("<td", "<th>", "<th "))
    return cell if is_whole else element(name, cell, **attributes)  # type: ignore[return-value]
