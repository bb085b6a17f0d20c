"""The first batch's sums are held against the gradients that backward left: no layer may be silently wrong."""

from __future__ import annotations

from collections.abc import Sequence

from autospec.capture.layers import Layer
from autospec.capture.leaf_gradients import LeafGradients
from autospec.errors import AutoSpecError
from autospec.recording.epoch_sums import EpochSums

ROUNDINGS = 256
"""How many roundings of their terms the sums may be away from what backward left; it adds up naively itself."""


_CAUSES = {
    "hooks": "Its weight is used in a way that the rule of {kind} does not describe, such as outside its module; "
    "register a rule, or leave it out with layers=['!{name}']",
    "other": "Its weight is used past the passes of the groups, such as in checkpointing with use_reentrant=True; "
    "use engine='hooks'",
}


def check_against(
    left: LeafGradients, layers: Sequence[Layer], sums: EpochSums, loss_scale: float, engine: str
) -> None:
    """AutoSpecError for a layer whose group gradients do not add up to what backward left in its weight."""
    for layer in layers:
        if layer.name not in left:
            continue
        found, rounding = sums.whole_gradient(layer)
        expected = left[layer.name].to(found.device) / loss_scale
        difference = float((found - expected).norm())
        if expected.isfinite().all() and not difference <= ROUNDINGS * rounding + 1e-30:
            raise AutoSpecError(
                f"layer {layer.name!r}: the groups' gradients do not add up to the one that backward left "
                f"(off by {difference / float(expected.norm()):.1e} of its norm). "
                + _CAUSES.get(engine, _CAUSES["other"]).format(kind=layer.kind, name=layer.name)
            )
