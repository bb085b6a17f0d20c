import numpy as np
import pytest

from autospec.webpage.table import Column, Link, cell, render_table, short_number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, '<td data-value="2" class="number">2</td>'),
        (np.float32(0.125), '<td data-value="0.125" class="number">0.125</td>'),
        (1e-9, '<td data-value="1e-09" class="number">1e-09</td>'),
        (1 / 3, '<td data-value="0.3333333333" class="number">0.333</td>'),
        (None, '<td data-value="" class="number">–</td>'),
        (float("nan"), '<td data-value="" class="number">–</td>'),
        (float("-inf"), '<td data-value="-inf" class="number">-∞</td>'),
        (True, "<td>True</td>"),
        ("<b>", "<td>&lt;b&gt;</td>"),
        (Link("a<b", "x"), '<td><a href="#x">a&lt;b</a></td>'),
        ("w" * 41, f'<td class="long">{"w" * 41}</td>'),
    ],
)
def test_a_cell_shows_a_value_and_keeps_what_it_is_sorted_by(value, expected):
    assert cell(value) == expected


def test_a_cell_is_found_by_its_key():
    assert cell(0.5, "p") == '<td data-key="p" data-value="0.5" class="number">0.5</td>'


def test_numbers_are_short_but_whole_ones_full():
    shown = [short_number(value) for value in (1234567.0, 0.0, 12345.6, 1e12)]
    assert shown == ["1234567", "0", "1.23e+04", "1e+12"]


def test_a_table_offers_choices_only_where_values_differ():
    columns = [Column("layer", "what <it> is", choose=True), Column("test", choose=True), Column("p")]
    html = render_table(columns, [["a", "t", 0.5], ["b", "t", None]], "tests", find=True)
    assert '<th title="what &lt;it&gt; is" data-choose="yes">layer</th><th>test</th><th class="number">p</th>' in html
    assert html.count("<tr>") == 3
    assert 'data-find="yes"' in html
    assert "data-choose" not in render_table(columns, [["a", "t", 0.5], ["b", "t", None]], "tests")
    assert render_table(columns, [], "tests").count("<tr>") == 1
