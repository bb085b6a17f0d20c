"""Whether the state of a recorder is one that another can go on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autospec.errors import AutoSpecError


def check_state(state: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a state of other groups, or of layers that are not here or have another shape.

    Args:
        state: What ``state_dict`` returned; one of an earlier version does not say of whom it is.
        here: The names of the groups, and the shape of each layer's matrix.

    Raises:
        AutoSpecError: Names the first difference.
    """
    if not isinstance(state, Mapping) or not {"epoch", "arrays", "dimensions"} <= set(state):
        raise AutoSpecError("load_state_dict: this is no state of a recorder; give what recorder.state_dict() returned")
    of = state.get("of", here)
    if list(of["groups"]) != list(here["groups"]):
        raise AutoSpecError(
            f"the state is of a recorder with the groups {', '.join(of['groups'])}; here they are "
            f"{', '.join(here['groups'])}"
        )
    for name, shape in of["layers"].items():
        there = here["layers"].get(name)
        if there is None or list(there) != list(shape):
            found = "is not watched here" if there is None else f"is {' × '.join(map(str, there))} here"
            raise AutoSpecError(
                f"the state is of another model: its layer {name!r}, {' × '.join(map(str, shape))}, {found}"
            )
