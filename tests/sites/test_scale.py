"""The simulation of messages against its formulas."""

import pytest
import torch

from autospec.sites.cost import message_bytes, sent_numbers
from autospec.sites.messages import Contribution, Form, body_length, body_of, contribution_of, head_of
from autospec.sites.parts import exact_part, leading_part, matrix_part
from autospec.sites.scale import Link, all_to_all, process_rows, record_numbers, ring_all_reduce, site_rows

LINK = Link(1e-3, 1e6)


@pytest.mark.parametrize("size", [2, 3, 8, 1024])
def test_a_ring_sends_what_its_formula_says(size):
    numbers = 1024 * 24
    cost = ring_all_reduce(size, numbers, 4, LINK)
    assert cost.sent_bytes == pytest.approx(2 * (size - 1) / size * 4 * numbers, rel=1e-3)
    rounds = 2 * (size - 1)
    assert cost.seconds == pytest.approx(rounds * (1e-3 + 4 * numbers / size / 1e6), rel=1e-3)


def test_alone_nothing_is_sent():
    assert ring_all_reduce(1, 100, 4, LINK).sent_bytes == 0.0
    assert process_rows((3, 4), [1])[0]["record_adds"] == 0.0


def test_a_record_adds_twice_its_groups_to_the_bytes_of_a_gradient():
    assert record_numbers((3, 4), 2, with_rows=False) == 24
    assert record_numbers((3, 4), 2, with_rows=True) == 24 + 2 * (9 + 16)
    row = process_rows((64, 64), [4], groups=2)[0]
    assert row["record_bytes"] == 4 * row["gradient_bytes"]


def test_sites_send_to_all_others():
    assert all_to_all([1e6, 2e6, 1e6], LINK).sent_bytes == 4e6
    assert all_to_all([1e6, 2e6, 1e6], LINK).seconds == pytest.approx(4.001)
    row = site_rows((1024, 1024), [3], rows=32, rank=8)[0]
    assert row["gradient_bytes"] == 2 * 4 * 1024**2
    assert row["dad_bytes"] == 2 * 4 * (32 * 2048 - 32 * 31 // 2)
    assert row["rank-dad_bytes"] == 2 * 4 * 8 * 2048


@pytest.mark.parametrize("way", ["gradient", "dad", "rank-dad"])
def test_a_message_is_as_long_as_its_formula_and_says_what_went_in(way):
    activation, adjoint = torch.randn(7, 30), torch.randn(7, 20)
    gradient = adjoint.double().mT @ activation.double()
    makers = {
        "gradient": lambda: matrix_part(gradient.float(), 7),
        "dad": lambda: exact_part(activation, adjoint),
        "rank-dad": lambda: leading_part(activation, adjoint, rank=3),
    }
    part = makers[way]()
    form = Form({"layer": (20, 30)}, 2, 5, torch.float32)
    sent = Contribution(torch.tensor([7.0, 0.0]).double(), {"layer": [part, None]}, torch.arange(5.0), 1.5)
    head, body = head_of(sent, form), body_of(sent, form)
    assert len(head) == 8 * form.head_length
    assert len(body) == body_length(head, form)
    whole = message_bytes({"layer": (20, 30)}, {"layer": 7}, 5, way, rank=3, cells=2)
    assert len(head) + len(body) == whole
    found = contribution_of(head, body, form)
    (read, nothing) = found.parts["layer"]
    assert nothing is None
    # the numbers that were sent, not their product: that is rounded by where they lie in memory
    assert torch.equal(read.left, part.left) and torch.equal(read.right, part.right)
    assert (read.left_out, read.leads, read.rows) == (part.left_out, part.leads, 7)
    assert torch.equal(found.others, torch.arange(5.0))
    assert (found.weights, found.samples.tolist()) == (1.5, [7.0, 0.0])


def test_no_way_sends_more_than_the_gradient():
    for rows in (1, 10, 100, 1000):
        for way in ("gradient", "dad", "rank-dad"):
            assert sent_numbers((60, 50), rows, way, rank=200) <= 3000
