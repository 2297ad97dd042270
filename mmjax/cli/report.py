"""Writes one self-contained HTML page about a run, or a folder of runs.

mmjax report --workdir=runs/quickstart
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors, folders

FLAGS = (
  Flag(
    "workdir",
    "",
    "folder or URL of a training run, or of several",
    required=True,
  ),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  from mmjax.report import page, results
  from mmjax.train import url_folder

  with url_folder.opened(flags.workdir, "none") as workdir:
    try:
      table = results.results_table(workdir)
      path = page.write_report(workdir).resolve()
    except page.ReportError as e:
      raise errors.UserError(str(e)) from e
  where = f"{path}"
  if folders.is_url(flags.workdir):
    table = table.replace(str(workdir), flags.workdir)
    where = f"{flags.workdir.rstrip('/')}/{path.name}"
  print(table)
  print(f"\nreport: {where}")
  return 0
