"""How many subjects an effect needs, from the spectra of a pilot whose labels were permuted.

    autospec power spectra.h5
    autospec power outputs/runs/RUN_ID --effect 0.3 --power 0.9

An effect is a log2 ratio of two groups' singular values, less what permuted labels give: 1 is twice as large. It is
found where its 95 % interval excludes 0; without --effect it is the pilot's own, which is uncertain.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autospec.analysis.power import power_table
from autospec.errors import AutoSpecError
from autospec.figures.show_command import spectra_path
from autospec.store.read import open_spectra


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the subjects that each layer and pair needs; exits with 1 after a mistake.

    Args:
        arguments: The words of the command line; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pilot", type=Path, help="a spectra file, or the folder of a run")
    parser.add_argument("--effect", type=float, help="the log2 ratio that is to be found (default: the pilot's)")
    parser.add_argument("--power", type=float, default=0.8, help="the share of studies that find it (default: 0.8)")
    options = parser.parse_args(arguments)
    try:
        spectra = open_spectra(spectra_path(options.pilot))
        permutations = spectra.permutations
        table = None if permutations is None else power_table(permutations, options.effect, options.power)
    except AutoSpecError as error:
        sys.exit(str(error))
    if table is None:
        sys.exit(f"{spectra.where}: holds no permutations (introspection.permutations)")
    shown = table.to_string(index=False, float_format="{:.3g}".format, na_rep="")
    sys.stdout.write(f"{spectra.where}\n{shown}\n")
