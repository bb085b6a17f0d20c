"""Where two runs part: in each layer the first epoch at which their spectra differ by more than rounding.

    autospec compare first/spectra.h5 second/spectra.h5

Takes spectra files or folders of runs; says first which settings, layers and groups only one of them has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autospec.analysis.run_difference import find_parting, list_unshared
from autospec.errors import AutoSpecError
from autospec.figures.show_command import spectra_path
from autospec.figures.terminal import as_text
from autospec.harmless import visible
from autospec.store.read import open_spectra


def main(arguments: Sequence[str] | None = None) -> None:
    """Print where two runs part; exits with 1 after a mistake.

    Args:
        arguments: The words of the command line; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="a spectra file, or the folder of a run")
    parser.add_argument("second", type=Path, help="another")
    options = parser.parse_args(arguments)
    try:
        first, second = (open_spectra(spectra_path(path)) for path in (options.first, options.second))
        table = find_parting(first, second)
    except AutoSpecError as error:
        sys.exit(str(error))
    lines = [f"first    {first.where}", f"second   {second.where}", *list_unshared(first, second)]
    sys.stdout.write("\n".join([*map(visible, lines), "", as_text(table)]) + "\n")
