"""One page of HTML that shows a run, or a folder of runs, figures and tables."""

from autospec.errors import require_extra

require_extra("autospec.figures.report", "report", "plotly")
