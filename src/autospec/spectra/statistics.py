"""The statistics of a layer: what each is called, its dimensions, and how it is computed from the sums.

Recorder and store know nothing else of them; a new one is one entry here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from autospec.errors import AutoSpecError
from autospec.spectra import measures  # noqa: F401 (registers them)
from autospec.spectra.layer_record import LayerRecord
from autospec.spectra.layer_sums import POSITIONS, LayerSums, gradient_floor, relative_floor
from autospec.spectra.rank import effective_rank, numerical_rank
from autospec.spectra.registered import REGISTERED, RegisteredStatistic
from autospec.spectra.subspace import principal_angles
from autospec.store.schema import (
    ACTIVATION,
    ADJOINT,
    ANGLE,
    GRADIENT,
    GROUP,
    INDEX,
    OTHER_GROUP,
    POSITION,
    RANK,
    SIDE,
    SUBSPACE,
    TIED,
)


@dataclass(frozen=True)
class Statistic:
    """A quantity of one layer at one recorded epoch.

    ``name`` is its path below the layer, ``dimensions`` those after the epoch, ``needs`` what of gradient,
    activation and adjoint must be summed for it, ``value`` the computation; ``known(sums)`` says whether a layer has
    this statistic.
    """

    name: str
    dimensions: tuple[str, ...]
    needs: frozenset[str]
    value: Callable[[LayerSums], Tensor]
    known: Callable[[LayerSums], bool] = lambda sums: True


def rank_bound(sums: LayerSums) -> Tensor:
    """(reported,): ``min(rows_c, in, out, rank A_c, rank Δ_c)``: no more of a gradient stands above the noise floor.

    Rows are samples times positions. The ranks of A and Δ are the measured ones, where they are recorded: above
    ``eps √min(shape) ‖A_c‖`` with the shape of the gradient, likewise of Δ. What is below has ``σ_k(A) σ₁(Δ)``, and
    with it ``σ_k(∇)``, under the gradient's floor. Those of a weight that other modules use too are left out, since
    they are kept per use and the gradient is of all uses.
    """
    bound = sums.grouping.sums(sums.rows).double().clamp_max(min(sums.shape))
    for name, stack in ({} if sums.used_elsewhere else sums.stacks).items():
        measured = numerical_rank(stack.spectra(), relative_floor(sums) * sums.norms()[name])
        bound = torch.minimum(bound, measured.cpu())
    return bound


def chain_bound(sums: LayerSums) -> Tensor:
    """(): the bound that the other layers of a linear chain put on the gradient's rank, of any group alike.

    Each backward pass adds a gradient of at most that rank, whose directions move with the weights. NaN where the
    measured rank is higher: then the layers are not called one after the other.
    """
    assert sums.chain is not None
    bound = min(sums.chain * sums.passes, *sums.shape)
    measured = numerical_rank(sums.gradient.spectra(), gradient_floor(sums))
    return torch.tensor(math.nan if (measured > bound).any() else bound, dtype=torch.float64)


def between_groups(sums: LayerSums) -> Tensor:
    """(reported, reported, 2, k): principal angles between every two groups' output and input subspaces, radians."""
    return torch.stack([principal_angles(side[:, None], side[None]) for side in sums.subspaces.sides], dim=2)


def between_epochs(sums: LayerSums) -> Tensor:
    """(reported, 2, k): principal angles between each group's subspaces and those at the record before; or NaN."""
    now, before = sums.subspaces, sums.earlier
    if before is None:
        return torch.full((len(now.output), 2, now.output.shape[-1]), torch.nan, dtype=torch.float64)
    pairs = zip(now.sides, before.sides, strict=True)
    return torch.stack([principal_angles(own, other.to(own)) for own, other in pairs], dim=1)


def _bounds(sums: LayerSums) -> Tensor:
    assert sums.bounds is not None
    return sums.bounds


def _of_rows(name: str) -> tuple[Statistic, Statistic]:
    needs = frozenset({name})

    def known(sums: LayerSums) -> bool:
        return sums.has_rows

    return (
        Statistic(name, (GROUP, INDEX), needs, lambda sums: sums.stacks[name].spectra(), known),
        Statistic(f"floor/{name}", (GROUP,), needs, lambda sums: sums.rows_floor(name), known),
    )


_ROWS = (
    Statistic(
        "rows",
        (GROUP,),
        frozenset(),
        lambda sums: sums.grouping.sums(sums.rows),
        known=lambda sums: not sums.only_gradients,
    ),
    Statistic(
        "own_rows",
        (GROUP,),
        frozenset(),
        lambda sums: sums.grouping.sums(sums.own_rows),
        known=lambda sums: sums.used_elsewhere,
    ),
    Statistic(
        "floor/measured",
        (),
        frozenset(),
        lambda sums: torch.tensor(float(sums.floors_are_measured), dtype=torch.float64),
        known=lambda sums: bool(sums.floors),
    ),
)
_OF_GRADIENT = frozenset({GRADIENT})
_OF_ALL = frozenset({GRADIENT, ACTIVATION, ADJOINT})


def _rank(name: str, measure: Callable[[Tensor, Tensor], Tensor]) -> Statistic:
    return Statistic(
        f"rank/{name}", (GROUP,), _OF_ALL, lambda sums: measure(sums.gradient.spectra(), gradient_floor(sums))
    )


STATISTICS: dict[str, tuple[Statistic, ...]] = {
    GRADIENT: (
        Statistic(GRADIENT, (GROUP, INDEX), _OF_GRADIENT, lambda sums: sums.gradient.spectra()),
        Statistic("floor/gradient", (GROUP,), _OF_GRADIENT, gradient_floor),
        Statistic("bound/gradient", (GROUP, INDEX), _OF_GRADIENT, _bounds, known=lambda sums: sums.bounds is not None),
        Statistic("cosine", (GROUP, OTHER_GROUP), _OF_GRADIENT, lambda sums: sums.gradient.cosines()),
        Statistic("cancellation", (), _OF_GRADIENT, lambda sums: sums.gradient.cancellation()),
    ),
    ACTIVATION: _of_rows(ACTIVATION),
    ADJOINT: _of_rows(ADJOINT),
    RANK: (
        Statistic("rank/bound", (GROUP,), _OF_ALL, rank_bound),
        Statistic("rank/chain", (), _OF_ALL, chain_bound, known=lambda sums: sums.chain is not None),
        _rank("numerical", numerical_rank),
        _rank("effective", effective_rank),
    ),
    TIED: (
        Statistic(
            "tied/gradient",
            (GROUP, POSITION, INDEX),
            frozenset({POSITIONS}),
            lambda sums: sums.positions.spectra(),
            known=lambda sums: sums.has_rows,
        ),
    ),
    SUBSPACE: (
        Statistic("subspace/groups", (GROUP, OTHER_GROUP, SIDE, ANGLE), _OF_GRADIENT, between_groups),
        Statistic("subspace/epochs", (GROUP, SIDE, ANGLE), _OF_GRADIENT, between_epochs),
    ),
}
"""What a user may ask for, each with what is stored beside it."""


def chosen_statistics(names: Iterable[str]) -> tuple[Statistic, ...]:
    """The statistics stored for the families that a user names, and those registered from outside."""
    chosen: list[Statistic] = [*_ROWS]
    for name in dict.fromkeys(names):
        chosen += STATISTICS[name] if name in STATISTICS else [_registered(REGISTERED[name])]
    return tuple(chosen)


def _registered(statistic: RegisteredStatistic) -> Statistic:
    """A statistic of someone's own as the recorder takes it."""
    name, function = statistic.name, statistic.function

    def value(sums: LayerSums) -> Tensor:
        try:
            values = torch.as_tensor(function(LayerRecord(sums)), dtype=torch.float64)
        except AutoSpecError:
            raise
        except Exception as error:
            raise AutoSpecError(f"statistic {name!r} raised {type(error).__name__}: {error}") from error
        lengths = {GROUP: sums.grouping.reported, OTHER_GROUP: sums.grouping.reported}
        wanted = tuple(lengths.get(axis, length) for axis, length in zip(statistic.dimensions, values.shape))  # noqa: B905
        if values.dim() != len(statistic.dimensions) or tuple(values.shape) != wanted:
            raise AutoSpecError(
                f"statistic {name!r} returned the shape {tuple(values.shape)}, which is not that of its dimensions "
                f"{statistic.dimensions}" + f" with {sums.grouping.reported} groups" * (GROUP in statistic.dimensions)
            )
        return values

    def known(sums: LayerSums) -> bool:
        return not statistic.needs & set(sums.moments.unknown)

    return Statistic(name, statistic.dimensions, statistic.needs, value, known)
