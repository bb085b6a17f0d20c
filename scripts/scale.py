"""Simulate what records cost from 1 to 1,024 processes and 2 to 100 sites; writes docs/scale_*.csv and the picture.

python scripts/scale.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from autospec.sites.scale import process_rows, site_rows

SHAPES = [(32, 784), (256, 256), (1024, 1024), (4096, 1024), (768, 30522)]
"""Layers from a small perceptron's to a language model's embedding, (out, in)."""

PROCESSES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
SITES = [2, 3, 5, 10, 20, 50, 100]


def main() -> None:
    """Simulate, write the tables and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs"), help="where to write")
    output = parser.parse_args().output
    processes = pd.DataFrame([row for shape in SHAPES for row in process_rows(shape, PROCESSES)])
    sites = pd.DataFrame([row for shape in SHAPES for row in site_rows(shape, SITES)])
    processes.to_csv(output / "scale_processes.csv", index=False, float_format="%.6g")
    sites.to_csv(output / "scale_sites.csv", index=False, float_format="%.6g")
    draw(processes, sites, output / "images" / "scale.png")


def draw(processes: pd.DataFrame, sites: pd.DataFrame, path: Path) -> None:
    """Two panels: what records add to a gradient's all-reduce; how long a step takes between sites, each way."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    for (out, width), rows in processes[processes["processes"] > 1].groupby(["out", "in"]):
        left.plot(rows["processes"], 100 * rows["record_adds"], label=f"{width:.0f} → {out:.0f}")
    left.set(xscale="log", xlabel="processes", ylabel="% of the gradient's time", ylim=(0, None))
    left.set_title("Records of 2 groups every 10 steps add (simulated)", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    rows = sites[(sites["out"] == 1024) & (sites["in"] == 1024)]
    for way in ("all_reduce", "gradient", "dad", "rank-dad"):
        right.plot(rows["sites"], rows[f"{way}_s"], label=way.replace("_", "-"))
    right.set(xscale="log", yscale="log", xlabel="sites", ylabel="seconds a step")
    right.set_title("A layer 1024 → 1024 between sites, 32 rows each (simulated)", fontsize=9)
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
