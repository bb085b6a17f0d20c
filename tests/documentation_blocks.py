"""The code blocks of README.md and docs/, and what a block needs that its page does not say."""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))


@dataclass(frozen=True)
class Block:
    """A fenced block: its page and line, its language, its text, and the output that stands below it, if any."""

    page: str
    line: int
    language: str
    text: str
    output: str | None


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page in order; a block of text right below one of Python is its output."""
    text = (ROOT / page).read_text()
    found = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    blocks = []
    for place, match in enumerate(found):
        after = found[place + 1] if place + 1 < len(found) else None
        follows = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        output = after[2] if after is not None and follows and match[1] == "python" else None
        blocks.append(Block(page, text[: match.start()].count("\n") + 1, match[1], match[2], output))
    return blocks


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block, each split into words; one may go on over several lines."""
    if block.language not in ("bash", "sh"):
        return []
    commands, waiting = [], ""
    for line in block.text.replace("\\\n", " ").splitlines():
        waiting += line + "\n"
        with contextlib.suppress(ValueError):  # a quotation that ends on a later line
            commands.append(shlex.split(waiting, comments=True))
            waiting = ""
    if waiting:
        raise AssertionError(f"{block.page}:{block.line}: a quotation does not end")
    return [words for words in commands if words]


MODEL = """
import torch
from torch import nn

import autospec

torch.manual_seed(0)
model = nn.Sequential()
model.add_module("hidden", nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
loss_fn, epochs = nn.MSELoss(), 2
optimizer = torch.optim.Adam(model.parameters())
loader = [(torch.randn(6, 4), torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, -1])) for _ in range(2)]
batch = torch.randn(6, 4)
"""
"""What readers of a page about their own loop have: a model, its loss, its data."""

RUN = """
import torch
from torch import nn

from autospec import SpectralRecorder, open_spectra

model = nn.Sequential()
model.add_module("hidden", nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
with SpectralRecorder(model, "spectra.h5", groups=["HC", "SZ"]) as recorder:
    for _ in range(3):
        with recorder.batch(torch.tensor([0, 1, 0, 1, 1, -1])):
            model(torch.randn(6, 4)).square().mean().backward()
        recorder.end_epoch()
spectra = open_spectra("spectra.h5")
"""
"""A file that a run has written."""

OUTPUTS = """
from pathlib import Path
from small_runs import record
for width in (3, 5):
    folder = Path("outputs/runs") / f"run-w{width}"
    folder.mkdir(parents=True)
    about = {"run_id": folder.name, "config": f"width: {width}"}
    record(folder / "spectra.h5", epochs=2, width=width, attributes=about)
"""

TWO_RUNS = """
for name in ("first", "second"):
    Path(name).mkdir()
    record(Path(name) / "spectra.h5", epochs=2)
"""
"""Two runs to compare."""

SETTINGS = {
    "README.md": MODEL + OUTPUTS + TWO_RUNS,
    "docs/spectra-file.md": RUN,
    "docs/reports.md": RUN + OUTPUTS,
}
"""By page, what is run before its first block."""

NOT_RUN = {
    "torch.distributed.init_process_group": "starts in several processes",
    "# in the loop, as above": "lines for a reader's loop, which stands above",
}
"""What a Python block holds that is not run, and why."""

RUN_ELSEWHERE = {
    "docs/callbacks.md": "tests/integrations/test_documentation.py",
    "docs/watching.md": "tests/integrations/test_documentation.py",
}
"""Pages whose blocks run beside the libraries that they need."""


def reason_not_run(block: Block) -> str | None:
    """Why a block is not run, or None."""
    return next((reason for text, reason in NOT_RUN.items() if text in block.text), None)
