"""The ranges of settings: each stands once, in a type that the recorder and the configuration share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, MinLen
from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from autospec.errors import AutoSpecError
from autospec.spectra.registered import statistic_names
from autospec.store.permuted_pairs import FEWEST_PERMUTATIONS
from autospec.store.schema import ACTIVATION, ADJOINT, GRADIENT, SUBSPACE, TIED

ENGINES = ("hooks", "fast", "per_group", "passes", "fused")
FORMER_ENGINES = {"aliased": "per_group"}
"""Names that engines had before, and still go by."""
REDUCTIONS = ("mean", "sum")
WITHOUT_THE_REST = (GRADIENT, ACTIVATION, ADJOINT, TIED, SUBSPACE)
"""Statistics that do not need the small singular values of gradients."""
CALIBRATED, MEASURED, FORMULA = FLOORS = ("calibrated", "measured", "formula")
"""How a noise floor is had; see ``SpectralRecorder``."""

T = TypeVar("T")


@dataclass(frozen=True)
class Allowed:
    """In an annotation: what a value must be, in words, for ranges that their bounds one by one do not explain."""

    text: str | Callable[[], str]
    """A function, where it depends on what was registered meanwhile."""

    def __str__(self) -> str:
        return self.text if isinstance(self.text, str) else self.text()


def must(hold: Callable[[Any], bool], text: str | Callable[[], str]) -> AfterValidator:
    """In an annotation: what must hold of a value beyond its bounds, and the words for a value of which it does not."""

    def check(value: Any) -> Any:
        if not hold(value):
            raise PydanticCustomError("must", "{text}", {"text": text if isinstance(text, str) else text()})
        return value

    return AfterValidator(check)


def one_of(names: Sequence[str]) -> AfterValidator:
    """In an annotation: the names that a text may be."""
    return must(lambda value: value in names, f"allowed are {', '.join(names)}")


def _whole_number(value: Any) -> int:
    """A whole number of any type, NumPy's too; text and truth values only look like one."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise PydanticCustomError("must", "{text}", {"text": "must be a whole number, 1 or more"})
    return int(value)


def _all_statistics() -> str:
    return ", ".join(statistic_names())


Count = Annotated[int, BeforeValidator(_whole_number), Ge(1)]
StatisticNames = Annotated[
    list[Annotated[str, must(lambda name: name in statistic_names(), lambda: f"allowed are {_all_statistics()}")]],
    MinLen(1),
    Allowed(lambda: f"must be one or more of {_all_statistics()}"),
]
EngineName = Annotated[str, must(lambda name: name in (*ENGINES, *FORMER_ENGINES), f"allowed are {', '.join(ENGINES)}")]
Tolerance = Annotated[float, Gt(0), Allowed("must be above 0, such as 1e-6")]
"""How far a certified singular value may be off, in units of the first."""
FloorName = Annotated[str, one_of(FLOORS)]
Permutations = Annotated[
    int,
    Ge(0),
    must(
        lambda count: count == 0 or count >= FEWEST_PERMUTATIONS,
        f"with fewer than {FEWEST_PERMUTATIONS} no p can reach 0.05; 0 is no test",
    ),
]
ReductionName = Annotated[str, one_of(REDUCTIONS)]


@dataclass
class RecorderSettings:
    """The arguments of ``SpectralRecorder`` that have a range of their own."""

    statistics: StatisticNames = field(default_factory=lambda: [GRADIENT])
    every: Count = 1
    epochs: Count | None = None
    leading: Count | None = None
    tolerance: Tolerance | None = None
    directions: Count = 3
    bins: Count | None = None
    engine: EngineName = ENGINES[0]
    check_every: Count | None = None
    floor: FloorName = CALIBRATED
    reduction: ReductionName = REDUCTIONS[0]
    permutations: Permutations = 0
    permutation_epochs: Count = 10


def tolerance_mistake(tolerance: float | None, leading: int | None, statistics: Sequence[str]) -> str:
    """What is wrong about asking for certified leading singular values; empty where nothing is.

    Args:
        tolerance: how far they may be off.
        leading: how many.
        statistics: what else is recorded.

    Returns:
        One line that names the keys.
    """
    if tolerance is None:
        return ""
    if leading is None:
        return f"tolerance={tolerance}: leading must say how many singular values are certified, such as leading=16"
    others = [name for name in statistics if name not in WITHOUT_THE_REST]
    if others:
        return f"tolerance={tolerance}: statistics={others[0]} may need all singular values; leave out one of the two"
    return ""


def check_settings(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a dataclass of settings made from values, each converted to its field's type.

    Args:
        kind: the dataclass, whose annotations say what is allowed.
        values: by the names of its fields.

    Raises:
        AutoSpecError: one line for each value that is not allowed, naming the key, the value and what is.
    """
    try:
        settings: T = _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise AutoSpecError("\n".join(_mistakes(kind, values, error, "None"))) from error
    return settings


def mistakes(kind: type[Any], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The values of a configuration node that are not allowed, each as ``key=value: what is allowed``.

    Args:
        kind: the node's dataclass.
        values: the node as nested dictionaries.
        prefix: what the keys begin with, such as ``dataset.``.

    Returns:
        One line for each; none where all is well.
    """
    try:
        _adapter(kind).validate_python(values)
    except ValidationError as error:
        return [prefix + mistake for mistake in _mistakes(kind, values, error, "null")]
    return []


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The validator of a dataclass, kept since it takes milliseconds to make."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _mistakes(kind: type[Any], values: Mapping[str, Any], error: ValidationError, nothing: str) -> list[str]:
    """The lines of a validation error; ``nothing`` is what no value is called."""
    return [_mistake(kind, values, entry, nothing) for entry in error.errors(include_url=False)]


def _mistake(kind: type[Any], values: Mapping[str, Any], entry: ErrorDetails, nothing: str) -> str:
    names = [part for part in entry["loc"] if isinstance(part, str)]
    annotation: Any = kind
    value: Any = values
    for name in names:
        annotation, value = get_type_hints(annotation, include_extras=True)[name], value[name]
    in_list = len(names) < len(entry["loc"])
    text = f"unknown {entry['input']}; {_text(entry)}" if in_list else _words(annotation) or _text(entry)
    optional = f", or {nothing}" if type(None) in get_args(annotation) else ""
    return f"{'.'.join(names)}={value}: {text}{optional}"


def _words(annotation: Any) -> str:
    """What an annotation itself says is allowed; empty where it leaves that to its bounds."""
    parts = [annotation, *get_args(annotation)]
    extras = [extra for part in parts if get_origin(part) is Annotated for extra in part.__metadata__]
    return next((str(extra) for extra in extras if isinstance(extra, Allowed)), "")


_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda bound: f"must be above {bound['gt']}",
    "greater_than_equal": lambda bound: f"must be {bound['ge']} or more",
    "less_than": lambda bound: f"must be below {bound['lt']}",
    "less_than_equal": lambda bound: f"must be at most {bound['le']}",
    "too_short": lambda bound: "must not be empty",
    "string_too_short": lambda bound: "must not be empty",
    "int_type": lambda bound: "must be a whole number",
    "int_parsing": lambda bound: "must be a whole number",
    "int_from_float": lambda bound: "must be a whole number",
    "list_type": lambda bound: "must be a list",
}
"""Our words for pydantic's kinds of error."""


def _text(entry: ErrorDetails) -> str:
    """What is allowed instead, from the rule that was broken."""
    words = _TEXTS.get(entry["type"])
    # pydantic gives the bounds of a float as 0.0
    bounds = {name: int(bound) if bound == 0 else bound for name, bound in entry.get("ctx", {}).items()}
    return words(bounds) if words else entry["msg"]
