"""The paper's statements S1 to S13, one small function each: in which seeds it holds, how large it is, and a p.

``holds`` asks for no more than the sentence says. Whether two networks differ is measured against the same network
with another seed: the distance of their spectra must be larger than that of a seed's run from the next seed's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from autospec.analysis.nan_statistics import Floats
from autospec.analysis.permutation import permutation_tests
from autospec.experiments.statements.cost import cost_exponents
from autospec.experiments.statements.measures import (
    binomial_p,
    change_by_index,
    distance,
    early,
    growth,
    jump,
    late,
    nan_median,
    share_at_floor,
    sign_flip_p,
)
from autospec.experiments.statements.networks import NETWORKS, PAIRS, LayerRecord, SeedRecord, Variant

ALPHA = 0.05
AE, CLASSIFIER = "autoencoder", "classifier"

Seeds = Sequence[SeedRecord]


@dataclass(frozen=True)
class Outcome:
    """What the seeds say of a statement.

    Attributes:
        holds: Whether it holds, seed by seed.
        effect: Its median effect.
        effect_is: What the effect is, in words.
        p: Of the effect, over seeds; NaN where there is no valid test.
        p_is: Which test, or why there is none.
    """

    holds: tuple[bool, ...]
    effect: float
    effect_is: str
    p: float
    p_is: str


FLIPPED = "sign flips of seeds"
BINOMIAL = "binomial: seeds with p ≤ 0.05, data of their own"


def input_layers_differ_by_task(seeds: Seeds) -> Outcome:
    """S1: input-layer spectra differ between autoencoder and classifier, in all figures."""
    return _by_task(seeds, place=0)


def output_layers_differ_by_task(seeds: Seeds) -> Outcome:
    """S2: so do output layers' spectra."""
    return _by_task(seeds, place=-1)


def slight_differences_early(seeds: Seeds) -> Outcome:
    """S3: sigmoid and tanh LSTM and CNN1D differ early in training, not late."""
    networks = ("cobre lstm", "cobre cnn1d")
    begin, end = (np.array([_by_activation(seeds, network, stage) for network in networks]) for stage in (early, late))
    holds = ((begin > 0) & (end <= 0)).all(0)
    return _test_by_sign_flips(holds, (begin - end).mean(0), "excess distance early less late, doublings")


def activation_matters_to_images(seeds: Seeds) -> Outcome:
    """S4: CNN2D and CNN3D differ by activation, CNN3D particularly early."""
    image, volume = (_by_activation(seeds, network) for network in ("mnist cnn2d", "cobre cnn3d"))
    begin, end = (_by_activation(seeds, "cobre cnn3d", stage) for stage in (early, late))
    holds = (image > 0) & (volume > 0) & (begin > end)
    return _test_by_sign_flips(holds, np.minimum(image, volume), "excess distance, the smaller of the two, doublings")


def bert_jumps_more(seeds: Seeds) -> Outcome:
    """S5: BERT's singular values jump more between epochs than the LSTM's."""
    more = [jump(seed["cobre bert", AE, "relu"]) - jump(seed["cobre lstm", AE, "relu"]) for seed in seeds]
    return _test_by_sign_flips(np.array(more) > 0, np.array(more), "jump of BERT less that of the LSTM, doublings")


def singular_values_shrink(seeds: Seeds) -> Outcome:
    """S6: singular values shrink over training, everywhere."""
    every = np.array([[growth(layer) for run in seed.values() for layer in run.layers.values()] for seed in seeds])
    shrink = np.where(np.isfinite(every), every < 0, True)
    return _test_by_sign_flips(
        shrink.all(1), np.nanmean(every, 1), f"growth, doublings; {shrink.mean():.0%} of layers shrink"
    )


def small_values_change_most(seeds: Seeds) -> Outcome:
    """S7: small singular values change most, and lie at the floor of floating point."""
    layers = [[layer for run in seed.values() for layer in run.layers.values()] for seed in seeds]
    change = np.array([nan_median(np.array([change_by_index(one) for one in of_seed])) for of_seed in layers])
    floor = np.array([np.mean([share_at_floor(one) for one in of_seed]) for of_seed in layers])
    at_floor = f"correlation of index and change; {floor.mean():.0%} of the smallest quarter lie at the floor"
    return _test_by_sign_flips((change > 0) & (floor > 0.5), change, at_floor)


def freesurfer_output_layer(seeds: Seeds) -> Outcome:
    """S8: panel 4 G, SZ and HC differ in the output layer, at middle indices."""
    variant = ("freesurfer mlp", AE, "relu")
    significant = [_p(seed, variant, "head") <= ALPHA for seed in seeds]
    middle = [_at_the_middle(seed, variant, "head") for seed in seeds]
    effect = nan_median(np.array([_excess(seed, variant, "head") for seed in seeds]))
    holds = tuple(bool(a and b) for a, b in zip(significant, middle, strict=True))
    words = f"excess log2 ratio of the output layer; {np.mean(middle):.0%} have the largest at the middle"
    return Outcome(holds, effect, words, *_group_p(seeds, variant, "head", significant))


def freesurfer_input_layer(seeds: Seeds) -> Outcome:
    """S9: panel 4 H, the classifier has more group differences in the input layer."""
    variant = ("freesurfer mlp", CLASSIFIER, "relu")
    more = np.array([_size(_layer(seed, variant, 0)) - _size(_layer(seed, variant, -1)) for seed in seeds])
    return _leave_untested(more > 0, more, "|log2 ratio| of the input layer less the output layer's")


def lstm_hidden_to_hidden(seeds: Seeds) -> Outcome:
    """S10: panels 5 G and H, the LSTM's differences among men are mostly hidden to hidden."""
    return _most_in(seeds, "cobre lstm", "hh")


def cnn1d_output_layer(seeds: Seeds) -> Outcome:
    """S11: panels 7 G and H, the 1-D CNN's differences among men are at the output layer."""
    return _most_in(seeds, "cobre cnn1d", None)


def bert_everywhere(seeds: Seeds) -> Outcome:
    """S12: panel 6 G, BERT's autoencoder differs everywhere; panel 6 H, its classifier almost nowhere."""
    variant = ("cobre bert", AE, "relu")
    share = np.array([np.mean([_p(seed, variant, layer) <= ALPHA for layer in seed[variant].layers]) for seed in seeds])
    significant = [bool(one > 0) for one in share]
    p, words = binomial_p(significant, ALPHA), f"{BINOMIAL}, in any layer (family-wise)"
    return Outcome(tuple((share > 0.5).tolist()), float(np.median(share)), "share of layers with p ≤ 0.05", p, words)


def cost_is_that_of_the_svd(seeds: Seeds) -> Outcome:
    """S13: cost grows as L·T·min(mn², m²n)."""
    exponents = np.array(cost_exponents(len(seeds)))
    near = np.abs(exponents - 1) < 0.2
    words = "exponent of min(mn², m²n) in the time of an SVD; L and T enter as a loop"
    return Outcome(tuple(near.tolist()), float(np.median(exponents)), words, float("nan"), "none: no null to test")


STATEMENTS: dict[str, Callable[[Seeds], Outcome]] = {
    f"S{number}": function
    for number, function in enumerate(
        (
            input_layers_differ_by_task,
            output_layers_differ_by_task,
            slight_differences_early,
            activation_matters_to_images,
            bert_jumps_more,
            singular_values_shrink,
            small_values_change_most,
            freesurfer_output_layer,
            freesurfer_input_layer,
            lstm_hidden_to_hidden,
            cnn1d_output_layer,
            bert_everywhere,
            cost_is_that_of_the_svd,
        ),
        start=1,
    )
}
"""By number the function that puts the statement to the test; its first line says what is stated."""


def _test_by_sign_flips(holds: Any, differences: Floats, effect_is: str) -> Outcome:
    effect = nan_median(differences)
    return Outcome(tuple(np.asarray(holds, dtype=bool).tolist()), effect, effect_is, sign_flip_p(differences), FLIPPED)


def _leave_untested(holds: np.ndarray, effects: Floats, effect_is: str) -> Outcome:
    reason = "none: weights depend on the compared labels"
    return Outcome(tuple(holds.tolist()), nan_median(effects), effect_is, float("nan"), reason)


def _layer(seed: SeedRecord, variant: Variant, place: int) -> LayerRecord:
    return list(seed[variant].layers.values())[place]


def _by_task(seeds: Seeds, place: int) -> Outcome:
    """Every network's distance between its two tasks less that between two seeds of its autoencoder."""
    excess = np.array([_task_excess(seeds, network, place) for network in NETWORKS])
    words = f"excess distance, doublings; {np.mean(excess > 0):.0%} of networks and seeds"
    return _test_by_sign_flips((excess > 0).all(0), excess.mean(0), words)


def _task_excess(seeds: Seeds, network: str, place: int) -> Floats:
    one, other = ([_layer(seed, (network, task, "relu"), place) for seed in seeds] for task in (AE, CLASSIFIER))
    return _excess_distance(one, other)


def _by_activation(seeds: Seeds, network: str, stage: Callable[[Floats], Floats] = lambda records: records) -> Floats:
    """(seed,) the median over layers of a network's distance between activations less that between seeds."""
    names = list(seeds[0][network, AE, "tanh"].layers)
    runs = [
        [[seed[network, AE, kind].layers[name] for seed in seeds] for kind in ("tanh", "sigmoid")] for name in names
    ]
    return np.median([_excess_distance(one, other, stage) for one, other in runs], axis=0)


def _excess_distance(
    one: Sequence[LayerRecord],
    other: Sequence[LayerRecord],
    stage: Callable[[Floats], Floats] = lambda records: records,
) -> Floats:
    """(seed,) the distance of two runs of a seed less that of the first from the next seed's."""
    # runs that differ in chance alone: what a difference has to exceed
    following = [*one[1:], one[0]]
    between = [distance(a, b, stage) for a, b in zip(one, other, strict=True)]
    same = [distance(a, b, stage) for a, b in zip(one, following, strict=True)]
    return np.nan_to_num(np.array(between) - np.array(same))


def _p(seed: SeedRecord, variant: Variant, layer: str) -> float:
    """The family-wise p of the primary test of a layer; 1 without one."""
    tests = seed[variant].tests
    if not len(tests):
        return 1.0
    rows = tests[(tests["test"] == "permutation") & (tests["per"] == "trajectory") & (tests["layer"] == layer)]
    p = float(rows["p_family"].iloc[0]) if len(rows) else float("nan")
    return p if np.isfinite(p) else 1.0


def _excess(seed: SeedRecord, variant: Variant, layer: str) -> float:
    """The excess log2 ratio, patients over controls: tests have controls first."""
    tests = seed[variant].tests
    rows = tests[(tests["test"] == "permutation") & (tests["per"] == "trajectory") & (tests["layer"] == layer)]
    return -float(rows["excess_log2_ratio"].iloc[0])


def _at_the_middle(seed: SeedRecord, variant: Variant, layer: str) -> bool:
    """Whether the largest difference by index lies in the middle third of the indices."""
    tests = seed[variant].tests
    rows = tests[(tests["test"] == "permutation") & (tests["per"] == "index") & (tests["layer"] == layer)]
    sizes = rows["excess_log2_ratio"].abs().to_numpy()
    if not np.isfinite(sizes).any():
        return False
    return bool(len(sizes) / 3 <= np.nanargmax(sizes) < 2 * len(sizes) / 3)


def _size(layer: LayerRecord) -> float:
    return nan_median(np.abs(layer.ratio))


def _most_in(seeds: Seeds, network: str, part: str | None) -> Outcome:
    """Whether an autoencoder's tests find a difference in one layer, and the smallest p there.

    Args:
        seeds: The seeds.
        network: The network.
        part: What the layer's name holds; None is the output layer.
    """
    variant = (network, AE, "relu")
    names = list(seeds[0][variant].layers)
    layer = names[-1] if part is None else next(name for name in names if part in name)
    p = [{name: _p(seed, variant, name) for name in names} for seed in seeds]
    significant = [of_seed[layer] <= ALPHA for of_seed in p]
    holds = tuple(hit and of_seed[layer] == min(of_seed.values()) for hit, of_seed in zip(significant, p, strict=True))
    effect = nan_median(np.array([_excess(seed, variant, layer) for seed in seeds]))
    return Outcome(holds, effect, f"excess log2 ratio of {layer}", *_group_p(seeds, variant, layer, significant))


def _group_p(seeds: Seeds, variant: Variant, layer: str, significant: Sequence[bool]) -> tuple[float, str]:
    """Of simulated cohorts, one a seed, the count of findings; of one real table the test of all seeds together."""
    designs = {run.permutation_design for seed in seeds if (run := seed[variant].permutations) is not None}
    if len(designs) != 1 or len(seeds) == 1:
        return binomial_p(significant, ALPHA), BINOMIAL
    layers = list(seeds[0][variant].layers)
    tests = permutation_tests([seed[variant].permutations for seed in seeds], layers, [PAIRS[variant[0]]], finer=False)
    rows = tests[(tests["test"] == "permutation") & (tests["layer"] == layer)]
    return float(pd.to_numeric(rows["p_family"]).iloc[0]), "permutation of labels, seeds averaged (one table)"
