"""How far the sites of a cohort lie apart, before and after they were harmonised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autospec.harmless import in_picture
from autospec.store.atomic import write_atomically

TITLES = {"shift": "location (SD of all)", "spread": "scale (log₂ of the SD over that of all)"}


def draw_sites(effects: Mapping[str, Mapping[str, Mapping[str, Any]]], source: str, path: Path) -> None:
    """Draw quantiles over features of each site's location and scale, before beside after.

    Args:
        effects: Before and after → site → shift and spread → five quantiles (5, 25, 50, 75, 95 %).
        source: Where the data come from, for the footer.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    sites = list(effects["before"])
    figure = Figure(figsize=(7.2, 1.6 + 0.35 * len(sites)), layout="constrained")
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), TITLES.items(), strict=True):
        for offset, (when, colour) in zip((-0.18, 0.18), (("before", "#999999"), ("after", "#0072b2")), strict=True):
            boxes = [_box(effects[when][site][kind]) for site in sites]
            axes.bxp(
                boxes,
                positions=[row + offset for row in range(len(sites))],
                widths=0.3,
                orientation="horizontal",
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": colour},
                medianprops={"color": "black"},
                manage_ticks=False,
            )
            axes.plot([], [], color=colour, linewidth=6, label=when)
        axes.axvline(0, color="black", linewidth=0.5, zorder=0)
        axes.set_title(title, fontsize=8)
        axes.set_yticks(range(len(sites)), [in_picture(name) for name in sites], fontsize=8)
        axes.tick_params(labelsize=8)
        axes.invert_yaxis()
    axes.invert_yaxis()  # shared: turned twice
    axes.legend(fontsize=7, frameon=False)
    caption = f"Sites before and after ComBat: box and whiskers hold 50 % and 90 % of the features. {source}"
    figure.supxlabel(in_picture(caption), fontsize=7)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _box(quantiles: Any) -> dict[str, float]:
    low, first, median, third, high = quantiles
    return {"whislo": low, "q1": first, "med": median, "q3": third, "whishi": high}
