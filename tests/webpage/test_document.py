import json

import pytest

from autospec.webpage.document import document, escape, json_script

HOSTILE = ["<script>alert(1)</script>", r"$\frac{1}{2}$", "\"quoted\" 'twice'", "a & b", "</script><!--", "&lt;"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_as_it_is_and_is_no_markup(text):
    import html

    escaped = escape(text)
    assert html.unescape(escaped) == text
    assert not set("<>\"'") & set(escaped)


def test_data_reach_the_script_unchanged_and_cannot_end_it():
    element = json_script('a"b', {"names": HOSTILE})
    start, content, end = element.partition(">")[0], element.partition(">")[2][: -len("</script>")], element[-9:]
    assert start == '<script type="application/json" id="a&quot;b"'
    assert end == "</script>"
    assert "<" not in content
    assert json.loads(content) == {"names": HOSTILE}
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_script("a", float("nan"))


def test_a_page_holds_everything_and_may_fetch_nothing():
    page = document("<title>", "<p>text</p>", ["p { color: red }"], ["one()", "two()"])
    assert "<title>&lt;title&gt;</title>" in page
    assert "default-src 'none'" in page
    assert page.index("<p>text</p>") < page.index("<script>one()</script>") < page.index("<script>two()</script>")
    assert '<meta name="viewport" content="width=device-width' in page
