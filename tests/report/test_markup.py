from __future__ import annotations

import pytest
from html_check import Page

from wsss.report.markup import Html, details, element, table, together


def test_text_from_data_is_never_markup() -> None:
    nasty = "<script>alert('x')</script> & \"friends\""
    for page in (element("p", nasty), element("p", title=nasty), table([nasty], [[nasty, nasty]])):
        assert "<script" not in page
        assert not Page(page).problems
    assert Page(element("p", nasty)).words == nasty


def test_attributes_are_named_as_html_names_them() -> None:
    made = element("td", "1", class_="number", aria_label="one", hidden=True, title=None, open=False)
    assert made == '<td class="number" aria-label="one" hidden>1</td>'


def test_markup_is_not_escaped_twice() -> None:
    inner = element("b", "a < b")
    assert element("p", inner, None, " & ") == "<p><b>a &lt; b</b> &amp; </p>"
    assert isinstance(together([inner, "x"]), Html)


def test_void_elements_have_no_end() -> None:
    assert element("img", src="data:,", alt="") == '<img src="data:," alt="">'


def test_a_table_names_its_rows_and_columns() -> None:
    page = Page(
        table(["class", "IoU"], [["cat", "1"], [element("th", "dog"), element("td", "2", class_="n")]])
    )
    headings = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert headings == ["col", "col", "row", None]
    assert not page.problems


@pytest.mark.parametrize("is_open", [True, False])
def test_details_are_open_on_request(is_open: bool) -> None:
    assert details("more", "text", is_open=is_open).startswith("<details open>") is is_open
