"""Measures near the paper's spectra, from the work of others, as registered statistics.

Each is asked for by its name: ``SpectralRecorder(..., statistics=["gradient", "noise_scale"])``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autospec.spectra.layer_record import LayerRecord
from autospec.spectra.registered import ROW_SUMS, ROWS, SAMPLE_NORMS, WEIGHT, register_statistic
from autospec.store.schema import ACTIVATION, GRADIENT, GROUP, INDEX

DIFFUSION_TIME = 1
"""Steps of the diffusion whose spectrum ``diffusion_entropy`` takes."""
MOST_DIFFUSED = 2000
"""So many rows, evenly spaced among those there are, enter ``diffusion_entropy``: its matrix has as many squared."""


def collapse(record: LayerRecord) -> Tensor:
    """Neural collapse NC1 of the layer's inputs: ``Tr(Σ_W Σ_B⁺) / C`` (Papyan, Han, Donoho 2020).

    Classes are the disjoint groups that have rows, C of them; ``Σ_W`` is the covariance of rows within classes, every
    row with the same weight, ``Σ_B`` that of the class means. Meant for the last layer, with classes as groups.

    Args:
        record: with the Gram matrices and the sums of the rows of ``A``.

    Returns:
        (): 0 where every class is one point; NaN with fewer than two classes.
    """
    here = record.disjoint
    count = record.row_counts[here]
    there = count > 0
    count, sums, gram = count[there], record.row_sums[here][there], record.gram(ACTIVATION)[here][there].sum(0)
    if len(count) < 2:
        return gram.new_tensor(math.nan)
    means = sums / count[:, None]
    within = (gram - sums.mT @ means) / count.sum()
    centred = means - means.mean(0)
    between = centred.mT @ centred / len(count)
    return (within @ torch.linalg.pinv(between, hermitian=True, rtol=1e-10)).trace() / len(count)


def alignment(record: LayerRecord) -> Tensor:
    """Alignment of the inputs' kernel with the groups: ``⟨K, YYᵀ⟩ / (‖K‖ ‖YYᵀ‖)`` (Cristianini et al. 2001).

    ``K = AAᵀ`` over the rows of all samples that have a group, not centred; ``Y`` marks each row's disjoint group.

    Args:
        record: with the Gram matrices and the sums of the rows of ``A``.

    Returns:
        (): between 0 and 1; NaN without rows.
    """
    here = record.disjoint
    size = torch.linalg.matrix_norm(record.gram(ACTIVATION)[here].sum(0))  # ‖AAᵀ‖ = ‖AᵀA‖
    labels = torch.linalg.vector_norm(record.row_counts[here])  # ‖YYᵀ‖ = √Σ n_c²
    return record.row_sums[here].square().sum() / (size * labels)


def diffusion_entropy(record: LayerRecord) -> Tensor:
    """Diffusion spectral entropy of the layer's inputs, in bits (Liao et al. 2023).

    A Gaussian kernel whose width is the median distance, made anisotropic (each entry divided by both its rows' sums)
    and then a Markov matrix; of its eigenvalues to the power of ``DIFFUSION_TIME``, made to sum to 1, the entropy.

    Args:
        record: with the rows of ``A``, of which at most ``MOST_DIFFUSED`` are taken.

    Returns:
        (): 0 where all rows are one point, at most the logarithm of their number.
    """
    rows = record.rows[:: -(-len(record.rows) // MOST_DIFFUSED)]
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    width = distance[~torch.eye(len(rows), dtype=torch.bool, device=rows.device)].median() if len(rows) > 1 else 0
    if not width > 0:
        return rows.new_tensor(0.0)
    kernel = (-distance.square() / width**2).exp()
    density = kernel.sum(1)
    kernel = kernel / density.outer(density)
    root = kernel.sum(1).sqrt()
    values = torch.linalg.eigvalsh(kernel / root.outer(root)).abs() ** DIFFUSION_TIME  # similar to the Markov matrix
    share = values / values.sum()
    return -(share * share.clamp_min(torch.finfo(share.dtype).tiny).log2()).sum()


def noise_scale(record: LayerRecord) -> Tensor:
    """Gradient noise scale of each group: ``tr Σ / ‖G‖²`` (McCandlish et al. 2018, ``B_simple``).

    ``Σ`` is the covariance of single samples' gradients and ``G`` their mean, both by unbiased estimates from the
    samples at hand: ``tr Σ = (Σ‖g_i‖² - ‖Σ g_i‖² / n) / (n - 1)``, ``‖G‖² = ‖Σ g_i / n‖² - tr Σ / n``. Batches of one
    size are taken for granted; over several batches the weights have moved, and that counts as noise.

    Args:
        record: with the group gradients and the samples' norms.

    Returns:
        (groups,): samples; NaN for fewer than two, and where the noise hides the mean.
    """
    count = record.sample_counts
    total = record.gradients.square().sum((1, 2))
    covariance = (record.sample_norms - total / count) / (count - 1)
    mean = total / count**2 - covariance / count
    return torch.where((count > 1) & (mean > 0), covariance / mean, torch.nan)


def tail_exponent(record: LayerRecord) -> Tensor:
    """Exponent α of the power law ``λ_i ∝ i^-α`` of the inputs' second moments (Agrawal et al. 2022, α-ReQ).

    By least squares of ``log λ_i`` on ``log i`` over all ``λ_i = σ_i²(A)`` above the rounding of the largest.

    Args:
        record: with the activations' spectra.

    Returns:
        (groups,): NaN for fewer than three such values.
    """
    return torch.stack([_slope(values.square()) for values in record.spectra(ACTIVATION)])


def _slope(values: Tensor) -> Tensor:
    """Minus the slope of the logarithm of values against that of their rank, as far as they are above rounding."""
    known = values[values > values[0] * 1e-12]
    if len(known) < 3:
        return values.new_tensor(math.nan)
    rank = torch.arange(1, len(known) + 1, dtype=values.dtype, device=values.device).log()
    rank = rank - rank.mean()
    return -(rank * known.log()).sum() / rank.square().sum()


def weight_update(record: LayerRecord) -> Tensor:
    """Singular values of what the optimizer did to the weight since the record before.

    Args:
        record: with the weight now and then.

    Returns:
        (index,): largest first; NaN where the weight at the record before is not known.
    """
    before = record.weight_before
    if before is None:
        return record.weight.new_full((min(record.shape),), math.nan)
    return torch.linalg.svdvals(record.weight - before)


register_statistic("collapse", collapse, dimensions=(), needs=(ACTIVATION, ROW_SUMS))
register_statistic("alignment", alignment, dimensions=(), needs=(ACTIVATION, ROW_SUMS))
register_statistic("diffusion_entropy", diffusion_entropy, dimensions=(), needs=(ROWS,))
register_statistic("noise_scale", noise_scale, dimensions=(GROUP,), needs=(GRADIENT, SAMPLE_NORMS))
register_statistic("tail_exponent", tail_exponent, dimensions=(GROUP,), needs=(ACTIVATION,))
register_statistic("weight_update", weight_update, dimensions=(INDEX,), needs=(WEIGHT,))
