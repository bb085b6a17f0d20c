import numpy as np
import pytest

from autospec import AutoSpecError
from autospec.analysis.power import COLUMNS, power_table
from autospec.store.permutations import PermutationRatios


def _pilot(effect, sd=0.1, partitions=400, pairs=(("SZ", "HC"),)):
    """Ratios of one layer, all epochs and indices alike, whose permuted effects have an SD of about ``sd``."""
    random = np.random.default_rng(0)
    effects = np.concatenate([[effect], random.normal(0, sd, partitions)])
    spread = np.broadcast_to(effects[None, None, :, None], (2, 1, len(effects), 3)).astype(np.float32)
    one = spread[..., 0]
    ratios = {"log_ratio": spread, "log_norm": one, "log_effective_rank": one, "cancellation": np.ones_like(one)}
    refused = {} if pairs else {("SZ", "HC"): "a group of 2 subjects; 3 are needed"}
    return PermutationRatios(
        np.arange(2), pairs, np.array([[20, 30]])[: len(pairs)], ("",), refused, "", {"head": ratios}, None
    )


def test_twice_the_effect_needs_a_quarter_of_the_subjects():
    small, large = (power_table(_pilot(0.1), effect)["needed"].item() for effect in (0.1, 0.2))
    assert small == pytest.approx(4 * large, abs=4)


def test_power_is_what_studies_of_that_size_have():
    """An effect of three SD: scipy.stats.norm.cdf(3 - 1.96) = 0.851; 2.8 SD have a power of 0.8."""
    table = power_table(_pilot(0.3))
    assert list(table.columns) == list(COLUMNS)
    ratio = table["effect"].item() / table["sd"].item()
    assert table["effect"].item() == pytest.approx(0.3, abs=0.01)
    assert table["power"].item() == pytest.approx(0.851, abs=0.05)
    assert table["needed"].item() == np.ceil(50 * (2.8016 / ratio) ** 2)


def test_as_many_studies_find_it_as_is_said():
    """Means of two groups of 10 that lie 1 SD apart, and the same of the size that a power of 0.9 needs."""
    random = np.random.default_rng(1)
    sd = np.sqrt(2 / 10)
    needed = power_table(_pilot(0.0, sd=sd, partitions=4000), effect=1.0, power=0.9)["needed"].item()
    size = round(10 * needed / 50)
    difference = (random.standard_normal((4000, size)) + 1).mean(1) - random.standard_normal((4000, size)).mean(1)
    assert (np.abs(difference) > 1.96 * np.sqrt(2 / size)).mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("pilot", "options", "message"),
    [
        (_pilot(0.1, pairs=()), {}, "power: the pilot's labels were not permuted \\(SZ and HC: a group of 2"),
        (_pilot(0.1), {"effect": 0.0}, "power: effect=0.0: must be a log2 ratio other than 0"),
        (_pilot(0.1), {"power": 1.0}, "power: power=1.0: must be between 0.05 and 1"),
    ],
)
def test_what_has_no_power_says_why(pilot, options, message):
    with pytest.raises(AutoSpecError, match=message):
        power_table(pilot, **options)
