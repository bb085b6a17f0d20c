"""The quality page of a prepared cohort: template match, motion, component maps, connectivity by domain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autospec.cohorts.exclusions import list_names
from autospec.cohorts.map_pictures import draw_maps, row_count
from autospec.cohorts.prepared_file import open_prepared, read_prepared
from autospec.cohorts.subject_file import POOR_MATCH, poor_matches
from autospec.harmless import in_picture
from autospec.neuroimaging.domains import COMPONENT_NAMES, DOMAINS, N_COMPONENTS
from autospec.store.atomic import write_atomically

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C00")
WIDTH_IN, NUMBERS_IN, MAP_ROW_IN = 13, 6.2, 1.75


@dataclass(frozen=True)
class Quality:
    """What is shown; ``match`` (n, components), ``motion`` (n,), maps (components, voxels); None where not known."""

    name: str
    source: str
    subjects: tuple[str, ...]
    connectivity: npt.NDArray[np.float64]
    match: npt.NDArray[np.float64] | None
    motion: npt.NDArray[np.float64] | None
    mean_maps: npt.NDArray[np.float64] | None
    mask: npt.NDArray[np.bool_] | None
    affine: npt.NDArray[np.float64] | None
    times_s: npt.NDArray[np.float64] | None = None
    volumes: int = 0
    account: tuple[str, ...] = ()

    @property
    def neuromark(self) -> bool:
        """Whether the components are those whose domains are known."""
        return len(self.connectivity) == N_COMPONENTS


def draw_quality(cohort: Path, page: Path) -> None:
    """Draw the quality page of a prepared cohort, as a picture.

    Args:
        cohort: The prepared cohort.
        page: The picture's path.

    Raises:
        AutoSpecError: The cohort cannot be read, or the picture cannot be written.
    """
    quality = read_quality(cohort)
    maps = quality.mean_maps
    maps_in = 0 if maps is None else 0.4 + MAP_ROW_IN * row_count(len(maps))
    share = maps_in / (NUMBERS_IN + maps_in)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(WIDTH_IN, NUMBERS_IN + maps_in))
        FigureCanvasAgg(figure)
        _draw_numbers(figure, share, quality)
        if maps is not None:
            draw_maps(figure, share, maps, quality.mask, quality.affine, _names(quality))
        with write_atomically(page) as temporary:
            figure.savefig(temporary, dpi=110, format=page.suffix[1:] or "png")


def read_quality(cohort: Path) -> Quality:
    """What the page shows, out of a prepared cohort; maps are read one subject at a time.

    Args:
        cohort: The prepared cohort.

    Returns:
        What is shown.

    Raises:
        AutoSpecError: The cohort cannot be read.
    """
    prepared = read_prepared(cohort, "timecourses")
    with open_prepared(cohort) as root:
        has_maps = "maps" in root
        maps = sum(root["maps"][i] for i in range(len(prepared.data))) / len(prepared.data) if has_maps else None
        match = root["template_match"][:] if "template_match" in root else None
        mask = root["mask"][:].astype(bool) if "mask" in root else None
        account = tuple(root["account"].asstr()[:]) if "account" in root else ()
    subjects = prepared.subjects
    times_s = None
    if "repetition_time_s" in subjects.columns:
        times_s = np.array([float(text) for text in subjects["repetition_time_s"]])
    return Quality(
        name=cohort.name,
        source=prepared.source,
        subjects=tuple(subjects["id"]),
        connectivity=mean_connectivity(prepared.data),
        match=match,
        motion=subjects["motion"].to_numpy(dtype=np.float64) if "motion" in subjects.columns else None,
        mean_maps=maps,
        mask=mask,
        affine=prepared.affine,
        times_s=times_s,
        volumes=prepared.data.shape[1],
        account=account,
    )


def mean_connectivity(timecourses: npt.NDArray) -> npt.NDArray[np.float64]:
    """The correlation of time-courses, its mean over subjects in z.

    Fisher's z is averaged; a component that never moves correlates with nothing.

    Args:
        timecourses: (n, time, components).

    Returns:
        (components, components), NaN on the diagonal.
    """
    total = 0.0
    for courses in np.asarray(timecourses, dtype=np.float64):
        centred = courses - courses.mean(axis=0)
        norms = np.linalg.norm(centred, axis=0)
        unit = centred / np.where(norms > 0, norms, 1)
        total = total + np.arctanh(np.clip(unit.T @ unit, -0.999999, 0.999999))
    mean: npt.NDArray[np.float64] = np.tanh(np.asarray(total) / len(timecourses))
    np.fill_diagonal(mean, np.nan)
    return mean


def _names(quality: Quality) -> list[tuple[str, str]]:
    """The label and the colour of each component."""
    if not quality.neuromark:
        return [(str(index + 1), "#333333") for index in range(len(quality.connectivity))]
    colours = [colour for domain, colour in zip(DOMAINS, COLOURS, strict=True) for _ in domain.indices]
    return list(zip(COMPONENT_NAMES, colours, strict=True))


def _draw_numbers(figure: Figure, share: float, quality: Quality) -> None:
    """What is above the maps, which take a share of the figure."""

    def height(fraction: float) -> float:
        return share + (1 - share) * fraction

    has_motion = quality.motion is not None and bool(np.isfinite(quality.motion).any())
    unknown = "" if has_motion else " · motion not known: neither a table of confounds nor a motion column"
    title = f"{quality.name}: {len(quality.subjects)} subjects · {quality.source}"
    figure.text(0.02, height(0.985), in_picture(title), va="top", weight="bold", fontsize=10)
    facts = f"{_scan_facts(quality)}{unknown}".removeprefix(" · ")
    figure.text(0.02, height(0.952), in_picture(facts), va="top", fontsize=8.5)
    grid = figure.add_gridspec(
        2, 2, width_ratios=[1.55, 1], hspace=0.5, wspace=0.14, left=0.055, right=0.97,
        top=height(0.89), bottom=height(0.08),
    )  # fmt: skip
    _draw_match(figure.add_subplot(grid[0, 0] if has_motion else grid[:, 0]), quality)
    if has_motion:
        _draw_motion(figure.add_subplot(grid[1, 0]), quality)
    _draw_connectivity(figure, figure.add_subplot(grid[:, 1]), quality)


def _scan_facts(quality: Quality) -> str:
    """Mask size, repetition time and volumes, for the title."""
    facts = [f"{quality.volumes} volumes"] if quality.volumes else []
    if quality.mask is not None:
        facts.append(f"mask of {int(quality.mask.sum())} voxels")
    if quality.times_s is not None and np.isfinite(quality.times_s).any():
        times = sorted({round(float(time), 3) for time in quality.times_s[np.isfinite(quality.times_s)]})
        facts.append(f"repetition time {' or '.join(f'{time:g}' for time in times)} s")
    return "".join(f" · {fact}" for fact in facts)


def _draw_match(axes: Any, quality: Quality) -> None:
    axes.set_title("Template match: correlation of each subject's map with the template's", loc="left")
    if quality.match is None:
        _say(axes, "no template: the components were estimated elsewhere")
        return
    places = np.arange(1, quality.match.shape[1] + 1)
    for place, values, (_, colour) in zip(places, quality.match.T, _names(quality), strict=True):
        axes.plot(np.full(len(values), place), values, ".", color=colour, markersize=3, alpha=0.6)
        axes.plot([place - 0.35, place + 0.35], [np.median(values)] * 2, color=colour, linewidth=2)
    axes.axhline(POOR_MATCH, color="#999999", linewidth=0.7, linestyle=":")
    poor = poor_matches(quality.subjects, quality.match)
    told = f"below {POOR_MATCH}: {list_names(poor)}" if poor else f"no subject has a map below {POOR_MATCH}"
    axes.set(xlim=(0.2, len(places) + 0.8), ylim=(min(0.0, float(quality.match.min())) - 0.02, 1), ylabel="r")
    axes.set_xlabel(f"component; a dot is a subject, a bar the median; {in_picture(told)}")
    if quality.neuromark:
        _label_domains(axes)


def _label_domains(axes: Any) -> None:
    for domain, colour in zip(DOMAINS, COLOURS, strict=True):
        axes.text((domain.first + domain.last) / 2, 0.99, domain.abbreviation, color=colour, ha="center", va="top",
                  weight="bold", transform=axes.get_xaxis_transform())  # fmt: skip


def _draw_motion(axes: Any, quality: Quality) -> None:
    axes.set_title("Motion: mean framewise displacement", loc="left")
    assert quality.motion is not None
    order = np.argsort(np.where(np.isfinite(quality.motion), quality.motion, -1))[::-1]
    axes.bar(np.arange(len(order)), np.nan_to_num(quality.motion[order]), color="#56B4E9")
    axes.set_ylabel("mm")
    axes.set_xlabel("subjects, who moved most first")
    if len(order) <= 40:
        axes.set_xticks(
            np.arange(len(order)), [in_picture(quality.subjects[index]) for index in order], rotation=90, fontsize=6
        )


def _draw_connectivity(figure: Figure, axes: Any, quality: Quality) -> None:
    axes.set_title("Connectivity: mean correlation of time-courses", loc="left")
    size = len(quality.connectivity)
    limit = max(0.1, float(np.nanquantile(np.abs(quality.connectivity), 0.995)))
    image = axes.imshow(quality.connectivity, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.7, label="r (mean over subjects in Fisher's z)")
    axes.spines[["top", "right"]].set_visible(True)
    if not quality.neuromark:
        axes.set(xlabel="component", ylabel="component")
        return
    for domain in DOMAINS[:-1]:
        axes.axhline(domain.last - 0.5, color="black", linewidth=0.6)
        axes.axvline(domain.last - 0.5, color="black", linewidth=0.6)
    middles = [(domain.first + domain.last) / 2 - 1 for domain in DOMAINS]
    axes.set_xticks(middles, [domain.abbreviation for domain in DOMAINS])
    axes.set_yticks(middles, [domain.abbreviation for domain in DOMAINS])
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        for label, colour in zip(ticks, COLOURS, strict=True):
            label.set_color(colour)


def _say(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, in_picture(text), ha="center", va="center", color="#777777", transform=axes.transAxes)
    axes.set_axis_off()
