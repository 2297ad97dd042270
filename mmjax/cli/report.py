"""Writes one self-contained HTML page about a run, or a folder of runs.

mmjax report --workdir=runs/quickstart
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors, folders

FLAGS = (
  Flag("workdir", "", "folder of a training run, or of several", required=True),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  from mmjax.report import page, results

  workdir = folders.local(flags.workdir)
  try:
    print(results.results_table(workdir))
    path = page.write_report(workdir)
  except page.ReportError as e:
    raise errors.UserError(str(e)) from e
  print(f"\nreport: {path.resolve()}")
  return 0
