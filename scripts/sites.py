"""Compare what sites can exchange, on a simulated cohort of three sites as three processes.

    python scripts/sites.py
    unshare -rn sh -c 'ip link set lo up; python scripts/sites.py --alone'   # also counts what the wire carries

Writes outputs/sites/ways.csv, what its columns mean, a file of spectra per way and site, and two pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from autospec.sites.comparison import COLUMNS, PEOPLE, Plan, compare
from autospec.store.read import open_spectra


def main() -> None:
    """Train every way, print the table, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/sites"), help="where to write")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rank", type=int, default=8, help="leading directions of rank-dAD")
    parser.add_argument("--alone", action="store_true", help="nothing else uses the loopback device")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = compare(Plan(arguments.output, arguments.steps, rank=arguments.rank), arguments.alone)
    table.to_csv(arguments.output / "ways.csv", index=False)
    (arguments.output / "ways.json").write_text(json.dumps(COLUMNS, indent=2) + "\n")
    sys.stdout.write(f"Simulated: {', '.join(f'{name} {count} people' for name, count in PEOPLE.items())}\n")
    sys.stdout.write(table.to_string(index=False) + "\n")
    spectra = open_spectra(arguments.output / "rank-dad_A.h5")
    spectra.plot(groups=list(PEOPLE), path=arguments.output / "spectra.png")
    spectra.plot_differences("A", "B", path=arguments.output / "differences.png")


if __name__ == "__main__":
    main()
