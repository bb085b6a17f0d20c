"""The quality of a prepared cohort as a page for the browser: a table to sort, thumbnails, cuts to try.

The page is one file without links, so that it can be sent; everything that comes from files is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.image import imsave

from autospec.cohorts.prepared_file import open_prepared, read_prepared
from autospec.cohorts.quality import Quality, read_quality
from autospec.cohorts.subject_file import POOR_MATCH
from autospec.errors import AutoSpecError
from autospec.neuroimaging.domains import COMPONENT_NAMES
from autospec.webpage.document import document, escape
from autospec.webpage.table import PAGE_STYLE, TABLE_SCRIPT, cell

COLUMNS = (
    ("subject", "Subject"), ("match", "Match (median r)"), ("worst", "Lowest map (r)"), ("which", "which"),
    ("motion", "Motion (mm)"), ("time", "Repetition time (s)"), ("left", "At these cuts"),
)  # fmt: skip
"""Columns of the table, by key and heading."""


@dataclass(frozen=True)
class Row:
    """What the table says of a subject; None where it is not known."""

    subject: str
    match: float | None
    worst: float | None
    which: str
    motion: float | None
    time_s: float | None
    labels: tuple[str, ...]
    thumbnail: str


def write_quality_page(cohort: Path, page: Path) -> None:
    """Write the page of a prepared cohort.

    Args:
        cohort: The prepared cohort.
        page: The HTML file.

    Raises:
        AutoSpecError: The cohort cannot be read, or the page cannot be written.
    """
    quality = read_quality(cohort)
    text = _page(quality, _rows(cohort, quality))
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AutoSpecError(f"{page}: cannot be written: {error.strerror or error}") from error


def _rows(cohort: Path, quality: Quality) -> list[Row]:
    """A row per subject, in the cohort's order."""
    subjects = read_prepared(cohort, "timecourses").subjects
    names = COMPONENT_NAMES if quality.neuromark else tuple(str(n + 1) for n in range(len(quality.connectivity)))
    labels = [name for name in ("diagnosis", "sex", "site", "session") if name in subjects.columns]
    rows = []
    with open_prepared(cohort) as root:
        for index, subject in enumerate(quality.subjects):
            match = None if quality.match is None else quality.match[index]
            rows.append(
                Row(
                    subject=subject,
                    match=None if match is None else float(np.median(match)),
                    worst=None if match is None else float(match.min()),
                    which="" if match is None else names[int(match.argmin())],
                    motion=_known(quality.motion, index),
                    time_s=_known(quality.times_s, index),
                    labels=tuple(str(subjects[name].iloc[index]) for name in labels),
                    thumbnail=_thumbnail(root["map_maximum"][index]) if "map_maximum" in root else "",
                )
            )
    return rows


def _known(values: npt.NDArray | None, index: int) -> float | None:
    return None if values is None or not np.isfinite(values[index]) else float(values[index])


def _thumbnail(volume: npt.NDArray) -> str:
    """The largest value along each axis of a map, three pictures side by side, as a data address."""
    views = [np.rot90(np.nan_to_num(volume).max(axis=axis)) for axis in (0, 1, 2)]
    height = max(view.shape[0] for view in views)
    padded = [np.pad(view, ((0, height - view.shape[0]), (0, 1))) for view in views]
    joined = np.repeat(np.repeat(np.hstack(padded), 2, axis=0), 2, axis=1)
    reach = float(joined.max()) or 1.0
    file = io.BytesIO()
    imsave(file, colormaps["inferno"](np.clip(joined / reach, 0, 1)), format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _page(quality: Quality, rows: Sequence[Row]) -> str:
    """The whole page."""
    match_cut, motion_cut = f"{POOR_MATCH:g}", "0.5"
    title = f"{quality.name}: {len(rows)} subjects"
    facts = [quality.source, f"{quality.volumes} volumes"]
    if quality.mask is not None:
        facts.append(f"mask of {int(quality.mask.sum())} voxels")
    head = "".join(f"<th>{heading}</th>" for _, heading in COLUMNS)
    table = "\n".join(_table_row(row) for row in rows)
    account = "\n".join(f"<li>{escape(line)}</li>" for line in quality.account)
    body = f"""<h1>{escape(title)}</h1>
<p>{escape(" · ".join(facts))}</p>
<p>Cuts: leave out whose lowest map correlates below <input id="match" type="number" step="0.05" value="{match_cut}">
with the template's, or who moved more than <input id="motion" type="number" step="0.05" value="{motion_cut}"> mm:
<b id="count"></b>. (<code>dataset.motion_cut</code> cuts by motion.) A click on a heading sorts.</p>
<div class="wide"><table id="subjects" class="sortable"><thead><tr>{head}<th>Labels</th><th>Map</th></tr></thead><tbody>
{table}
</tbody></table></div>
<h2>Account</h2><ul>
{account}
</ul>"""
    return document(title, body, [PAGE_STYLE, STYLE], [f"{SCRIPT}{TABLE_SCRIPT}"])


def _table_row(row: Row) -> str:
    cells: dict[str, Any] = {
        "subject": row.subject, "match": row.match, "worst": row.worst, "which": row.which, "motion": row.motion,
        "time": row.time_s, "left": "",
    }  # fmt: skip
    texts = "".join(cell(cells[key], key) for key, _ in COLUMNS)
    picture = f'<img src="{row.thumbnail}" alt="map">' if row.thumbnail else ""
    return f"<tr>{texts}<td>{escape(', '.join(row.labels))}</td><td>{picture}</td></tr>"


STYLE = """
body { max-width: none } tr.out { background: #fbe9e2 } input { width: 5em }
img { image-rendering: pixelated; height: 64px }
"""

SCRIPT = """
const body = document.querySelector('#subjects tbody');
const value = (row, key) => row.querySelector(`td[data-key="${key}"]`).dataset.value;
const known = text => text !== '' && !Number.isNaN(Number(text));
function cut() {
  const match = Number(document.getElementById('match').value);
  const motion = Number(document.getElementById('motion').value);
  let out = 0;
  for (const row of body.rows) {
    const worst = value(row, 'worst'), moved = value(row, 'motion'), reasons = [];
    if (known(worst) && Number(worst) < match) reasons.push('match');
    if (known(moved) && Number(moved) > motion) reasons.push('motion');
    row.classList.toggle('out', reasons.length > 0);
    row.querySelector('td[data-key="left"]').textContent = reasons.length ? 'out: ' + reasons.join(', ') : 'stays';
    out += reasons.length > 0;
  }
  document.getElementById('count').textContent = `${out} of ${body.rows.length} subjects`;
}
for (const id of ['match', 'motion']) document.getElementById(id).addEventListener('input', cut);
cut();
"""
