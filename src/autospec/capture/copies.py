"""What must not be copied with a model: a recorder that a user keeps in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NoReturn, Self

from autospec.errors import AutoSpecError

_shared: ContextVar[bool] = ContextVar("shared", default=False)


class Uncopied:
    """What is bound to one model in one process, so that a copy would record what is not its own."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise AutoSpecError(
            f"a {type(self).__name__} cannot be copied or pickled, as it watches one model in one process: keep it "
            "outside of what is copied, and save recorder.state_dict() or the file"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self if _shared.get() else self.__reduce_ex__(4)


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """A context in which a copied model shares what must not be copied with the original."""
    token = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(token)
