"""What is in a spectra file, what happened in each layer, and pictures of it.

    autospec show spectra.h5
    autospec show spectra.h5 --layers 'encoder.*' --picture spectra.png
    autospec show spectra.h5 --differences SZ HC --picture differences.pdf
    autospec show spectra.h5 --live          # redrawn while a run writes it; Ctrl-C ends

Values are of each group's mean gradient, so that groups of unequal size can be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.analysis.layer_summary import summarise
from autospec.errors import AutoSpecError
from autospec.figures.live import watch
from autospec.figures.terminal import SPARK_WIDTH, as_text, sparkline
from autospec.store.layers_by_name import layers_by_name
from autospec.store.read import Spectra, load_spectra, open_spectra
from autospec.store.schema import ALL, GRADIENT


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a file's description and summary, and draw what is asked for; exits with 1 after a mistake.

    Args:
        arguments: The words of the command line; None takes those of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        _show(options)
    except AutoSpecError as error:
        sys.exit(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a spectra file, or the folder of a run")
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="layers by name or pattern (default: all)")
    parser.add_argument(
        "--groups", nargs="+", metavar="NAME", help="groups drawn in the picture (default: the disjoint)"
    )
    parser.add_argument(
        "--differences", nargs=2, metavar=("A", "B"), help="test two groups, and draw where they differ"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw: .png, .pdf or .svg")
    parser.add_argument("--live", action="store_true", help="redraw in the terminal while a run writes the file")
    return parser


def _show(options: argparse.Namespace) -> None:
    if options.live:
        watch(spectra_path(options.file), options.layers)
        return
    spectra = open_spectra(spectra_path(options.file))
    layers = layers_by_name(spectra, options.layers)
    table = summarise(spectra, layers)
    table.insert(0, "σ₁ over training", [sparkline(_course(spectra, layer)) for layer in layers])
    sys.stdout.write(f"{spectra}\n\n{as_text(table)}\n")
    if options.differences:
        sys.stdout.write(f"\n{_tests(spectra, options.differences, layers)}\n")
    if options.picture is None:
        return
    if options.differences:
        first, second = options.differences
        spectra.plot_differences(first, second, layers=options.layers, path=options.picture)
    else:
        spectra.plot(layers=options.layers, groups=options.groups, path=options.picture)
    sys.stdout.write(f"\n{options.picture}\n")


def _tests(spectra: Spectra, pair: Sequence[str], layers: Sequence[str]) -> str:
    """The primary test of two groups in some layers, or why there is none."""
    first, second = pair
    tests = spectra.tests(first, second)
    primary = tests[(tests["test"] == "permutation") & tests["layer"].isin(layers)].set_index("layer")
    shown = primary[["p", "p_family", "excess_log2_ratio", "larger", "note"]]
    return f"{first} against {second}, labels of subjects permuted\n{as_text(shown)}"


def spectra_path(path: Path) -> Path:
    """Return the spectra file that a path means: itself, or the one in the folder of a run."""
    return path / "spectra.h5" if path.is_dir() else path


def _course(spectra: Spectra, layer: str) -> npt.NDArray[np.float64]:
    """σ₁ of the whole batch's mean gradient at a few epochs."""
    loaded = load_spectra(spectra.path, [layer], 4 * SPARK_WIDTH, (GRADIENT,))
    return loaded.scaled(layer).sel(group=ALL, index=1).values
