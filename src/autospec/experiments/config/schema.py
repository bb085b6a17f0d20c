"""The typed schema of the configuration; ``conf/`` holds its values and explains them to users."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import MISSING

from autospec.spectra.settings import (
    CALIBRATED,
    Allowed,
    Count,
    EngineName,
    FloorName,
    Permutations,
    StatisticNames,
    Tolerance,
    one_of,
)

FIGURE_TESTS = ("permutation", "paper")

LearningRate = Annotated[float, Gt(0), Lt(inf), Allowed("must be above 0 and finite")]
Seed = Annotated[int, Ge(0), Lt(2**63), Allowed("must be between 0 and 2^63 - 1")]
Share = Annotated[float, Ge(0), Lt(1), Allowed("must be at least 0 and below 1")]
Duration = Annotated[float, Ge(0)]
Folder = Annotated[str, MinLen(1), Allowed("must name a folder")]
Columns = Annotated[list[str], MinLen(1), Allowed("must name at least one column")]

# beyond any use: a slip of the finger, which would end in a crash
Width = Annotated[int, Ge(1), Le(1_000_000)]
Depth = Annotated[int, Ge(1), Le(1_000)]
Epochs = Annotated[int, Ge(1), Le(10_000_000)]
Threads = Annotated[int, Ge(1), Le(1_024)]


class Task(Enum):
    """What the network learns."""

    autoencoding = "autoencoding"
    classification = "classification"


class Activation(Enum):
    """The nonlinearity of every hidden layer."""

    relu = "relu"
    tanh = "tanh"
    sigmoid = "sigmoid"
    custom = "custom"


class Architecture(Enum):
    """The network's family."""

    mlp = "mlp"
    rnn = "rnn"
    lstm = "lstm"
    bert = "bert"
    cnn1d = "cnn1d"
    cnn2d = "cnn2d"
    cnn3d = "cnn3d"
    custom = "custom"


class Device(Enum):
    """Where a run trains; auto is the GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Shows(Enum):
    """What a panel draws of its run."""

    spectra = "spectra"
    differences = "differences"


@dataclass
class DatasetConfig:
    """What every data set has; ``conf/dataset/`` says what each adds."""

    name: str = MISSING
    path: str | None = None
    target: str = MISSING
    group_by: Columns = MISSING
    scaling: str = MISSING
    holdout: Share = 0.0
    holdout_seed: Seed = 314159


@dataclass
class MnistConfig(DatasetConfig):
    """Handwritten digits."""

    name: str = "mnist"
    target: str = "digit"
    group_by: Columns = field(default_factory=lambda: ["digit"])
    scaling: str = "unit"
    digits: list[int] = field(default_factory=lambda: [0, 1, 2, 3])
    per_digit: int | None = None


@dataclass
class SinusoidConfig(DatasetConfig):
    """Sine waves, one frequency per class."""

    name: str = "sinusoid"
    target: str = "class"
    group_by: Columns = field(default_factory=lambda: ["class"])
    scaling: str = "none"
    seed: Seed = 314159
    classes: list[int] = field(default_factory=lambda: [0, 1, 2, 3])
    per_class: int = 100
    time_points: int = 64
    channels: int = 1
    noise_sd: float = 0.1


@dataclass
class CustomConfig(DatasetConfig):
    """A data set of one's own, made by a function."""

    name: str = MISSING
    _target_: str = MISSING
    target: str = "label"
    group_by: Columns = field(default_factory=lambda: ["label"])
    scaling: str = "none"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class CovariateConfig:
    """A normal distribution between two bounds; ``shift`` is how far patients lie above controls, in SD."""

    mean: float = MISSING
    sd: float = MISSING
    low: float = MISSING
    high: float = MISSING
    shift: float = 0.0


@dataclass
class SexesConfig:
    """A number of subjects of each sex."""

    men: int = MISSING
    women: int = MISSING


@dataclass
class PeopleConfig:
    """How many controls and patients a simulated cohort has; its name is the key ``dataset.people``."""

    HC: SexesConfig = field(default_factory=SexesConfig)
    SZ: SexesConfig = field(default_factory=SexesConfig)


@dataclass
class CohortConfig(DatasetConfig):
    """What the data sets of subjects have: their phenotype table, and the subjects of a simulated cohort."""

    target: str = "diagnosis"
    group_by: Columns = field(default_factory=lambda: ["diagnosis", "sex"])
    columns: dict[str, str] = MISSING
    labels: dict[str, dict[str, list[str]]] = MISSING
    id_pattern: str | None = None
    session: str | None = None
    motion_cut: float | None = None
    match: list[str] = field(default_factory=list)
    harmonize: list[str] = field(default_factory=list)
    residualize: list[str] = field(default_factory=list)
    equal_leverage: bool = False
    seed: Seed = 314159
    people: PeopleConfig = field(default_factory=PeopleConfig)
    age: CovariateConfig = field(default_factory=CovariateConfig)
    motion: CovariateConfig = field(default_factory=CovariateConfig)
    effect: float = 1.0
    diagnosis_effects: dict[str, float] = MISSING
    sex_effects: dict[str, float] = MISSING
    age_effects: dict[str, float] = MISSING


@dataclass
class VolumeCorrelationConfig:
    """How volumes correlate over subjects: any two, two of one tissue, the two of a hemisphere pair."""

    overall: float = MISSING
    tissue: float = MISSING
    hemispheres: float = MISSING


@dataclass
class FreesurferConfig(CohortConfig):
    """Volumes of brain structures."""

    name: str = "freesurfer"
    group_by: Columns = field(default_factory=lambda: ["diagnosis"])
    scaling: str = "feature"
    table: Any = None
    subjects_dir: str | None = None
    participants: str | None = None
    features: Any = "aseg"
    head_size_effects: dict[str, float] = MISSING
    motion_effects: dict[str, float] = MISSING
    correlation: VolumeCorrelationConfig = field(default_factory=VolumeCorrelationConfig)


@dataclass
class CobreTimeseriesConfig(CohortConfig):
    """Time-courses of the 53 NeuroMark components."""

    name: str = "cobre_timeseries"
    scaling: str = "person"
    time_points: int | None = None
    spectral_exponent: float = MISSING
    couplings: dict[str, float] = MISSING
    motion_effect: float = MISSING


@dataclass
class CobreFncConfig(CobreTimeseriesConfig):
    """Functional network connectivity of the components, alone or beside their spectra and maps."""

    name: str = "cobre_fnc"
    scaling: str = "feature"
    blocks: list[str] = field(default_factory=lambda: ["fnc"])
    form: str = "vector"
    window: int | None = None
    select: int | None = None


@dataclass
class CobreMultiscaleConfig(CobreFncConfig):
    """Connectivity, spectra and maps side by side."""

    name: str = "cobre_multiscale"
    blocks: list[str] = field(default_factory=lambda: ["spectra", "fnc"])


@dataclass
class CobreMapsConfig(CohortConfig):
    """One spatial map per subject."""

    name: str = "cobre_maps"
    scaling: str = "global"
    resolution_mm: int | None = None
    motion_effects: dict[str, float] = MISSING
    amplitude_sd: float = MISSING
    amplitude_correlation: float = MISSING
    blob_sd_mm: float = MISSING
    noise_sd: float = MISSING
    noise_smoothness_mm: float = MISSING


@dataclass
class IntrospectionConfig:
    """What is recorded while the network trains."""

    statistics: StatisticNames = field(default_factory=lambda: ["gradient"])
    every: Count = 1
    layers: list[str] | None = None
    engine: EngineName = "hooks"
    floor: FloorName = CALIBRATED
    leading: Count | None = None
    tolerance: Tolerance | None = None
    directions: Count = 3
    bins: Count | None = None
    permutations: Permutations = 0
    permutation_epochs: Count = 10
    permutation_pairs: list[list[str]] | None = None
    permutation_seed: Annotated[int, Ge(0)] = 314159
    omnibus: bool | None = None
    covariates: list[str] = field(default_factory=list)
    retrain: Permutations = 0
    strata: list[str] = field(default_factory=lambda: ["sex", "site"])


@dataclass
class FigureConfig:
    """How a figure of the paper is drawn; takes no part in a run."""

    number: int | None = None
    title: str = ""
    pairs: list[list[str]] = field(default_factory=list)
    min_group: int = 15
    layers: list[str] | None = None
    tests: Annotated[str, one_of(FIGURE_TESTS)] = "permutation"
    seeds: list[int] = field(default_factory=list)


@dataclass
class PanelConfig:
    """What a panel shows of its run; differences need groups to compare, and nothing else depends on it."""

    shows: Shows = Shows.spectra


@dataclass
class ExperimentConfig:
    """One run: data, network, task, training, and what is recorded of it."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    architecture: Architecture = MISSING
    task: Task = MISSING
    activation: Activation = MISSING
    width: Width = MISSING
    depth: Depth = MISSING
    epochs: Epochs = MISSING
    network: dict[str, Any] = field(default_factory=dict)
    nonlinearity: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=lambda: {"_target_": "torch.optim.Adam"})
    schedule: dict[str, Any] = field(default_factory=dict)
    extensions: list[str] = field(default_factory=list)
    learning_rate: LearningRate = MISSING
    batch_size: Count | None = None
    seed: Seed = MISSING
    introspection: IntrospectionConfig = field(default_factory=IntrospectionConfig)
    device: Device = Device.auto
    threads: Threads = 1
    processes: Count = 1
    output_dir: Folder = "outputs"
    checkpoint_s: Duration | None = None
    accept_changes: bool = False
    overwrite: bool = False
    supplement: bool = False
    figure: FigureConfig = field(default_factory=FigureConfig)
    panel: PanelConfig = field(default_factory=PanelConfig)


DATASET_SCHEMAS: dict[str, type[DatasetConfig]] = {
    "mnist": MnistConfig,
    "sinusoid": SinusoidConfig,
    "freesurfer": FreesurferConfig,
    "cobre_timeseries": CobreTimeseriesConfig,
    "cobre_fnc": CobreFncConfig,
    "cobre_multiscale": CobreMultiscaleConfig,
    "cobre_maps": CobreMapsConfig,
    "custom": CustomConfig,
}
"""The schema of each choice of the ``dataset`` group."""

NOT_IN_RUN_ID = frozenset(
    {"device", "threads", "processes", "output_dir", "checkpoint_s", "accept_changes", "overwrite", "supplement"}
    | {"figure", "panel"}
    | {"extensions"}  # whose code counts, not their names
)
"""Keys that decide where and how a run is made or drawn, not its numbers."""

INTROSPECTION_NOT_IN_RUN_ID = frozenset({"retrain"})
"""The same among those of ``introspection``: other networks than the run's."""

SOURCE_KEYS = frozenset({"path", "table", "subjects_dir", "participants"})
"""Keys of a data set that say where real data lie; their content decides the numbers, not their place."""

SIMULATION_KEYS = frozenset(
    {
        "seed",
        "people",
        "age",
        "motion",
        "effect",
        "diagnosis_effects",
        "sex_effects",
        "age_effects",
        "head_size_effects",
        "motion_effects",
        "motion_effect",
        "correlation",
        "couplings",
        "spectral_exponent",
        "amplitude_sd",
        "amplitude_correlation",
        "blob_sd_mm",
        "noise_sd",
        "noise_smoothness_mm",
    }
)
"""Keys of a data set that decide nothing where real data are read."""
