"""A methods paragraph of a run, from its configuration and what its spectra file says.

    autospec methods outputs/runs/<run_id>

Prints the paragraph, in lines of 100 characters.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.experiments.report.methods import methods_paragraph
from autospec.harmless import visible


def main() -> None:
    """Print the paragraph of the run folder that the command line names; exits with 1 after a mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path, help="the folder of a run, outputs/runs/<run_id>")
    try:
        text = methods_paragraph(parser.parse_args().run_folder)
    except AutoSpecError as error:
        sys.exit(str(error))
    sys.stdout.write(textwrap.fill(visible(text, keep="\n"), 100) + "\n")
