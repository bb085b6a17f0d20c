"""A methods paragraph of a run, from its configuration and what its spectra file says.

python scripts/methods.py outputs/runs/<run_id>
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.experiments.report.methods import methods_paragraph


def main() -> None:
    """Print the paragraph of the run folder that the command line names."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        text = methods_paragraph(Path(sys.argv[1]))
    except AutoSpecError as error:
        sys.exit(str(error))
    sys.stdout.write(textwrap.fill(text, 100) + "\n")


if __name__ == "__main__":
    main()
