import pytest

from mmjax.core import errors
from mmjax.distributed.start import Place, find_place

# As srun, Open MPI 4, Open MPI 5 and GKE set them.
SLURM = {
  "SLURM_JOB_ID": "77",
  "SLURM_STEP_NODELIST": "node[1-4]",
  "SLURM_LOCALID": "0",
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "2",
}
OPEN_MPI = {
  "OMPI_COMM_WORLD_SIZE": "2",
  "OMPI_COMM_WORLD_RANK": "1",
  "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
}
OPEN_MPI_5 = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "3"}
TORCHRUN = {"WORLD_SIZE": "8", "RANK": "5"}
ALONE = Place(processes=1, process=0)
THREE = Place(coordinator="h:1234", processes=3, process=1)


@pytest.mark.parametrize(
  "given, environ, expected",
  [
    (Place(), {}, ALONE),
    (Place(), {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ALONE),
    (Place(), {"TPU_WORKER_HOSTNAMES": "localhost"}, ALONE),
    # Left to jax, which is to find as many.
    (Place(), SLURM, Place(processes=4)),
    (Place(), OPEN_MPI, Place(processes=2)),
    (Place(), TPU, Place(processes=4)),
    (Place(), TPU | {"MEGASCALE_NUM_SLICES": "2"}, Place(processes=8)),
    (Place(processes=4), SLURM, Place(processes=4)),
    (Place(processes=4), {}, Place(processes=4)),
    # An address completes what a launcher says.
    (
      Place(coordinator="h:1234"),
      OPEN_MPI_5,
      Place(coordinator="h:1234", processes=2, process=1),
    ),
    (
      Place(coordinator="h:1234"),
      TORCHRUN,
      Place(coordinator="h:1234", processes=8, process=5),
    ),
    (THREE, {}, THREE),
    # On purpose alone beside others.
    (Place(processes=1), SLURM, ALONE),
    (Place(processes=1), TORCHRUN, ALONE),
  ],
)
def test_place_is_what_flags_and_launcher_say(given, environ, expected):
  assert find_place(given, environ) == expected


def without(environ, name):
  return {k: v for k, v in environ.items() if k != name}


@pytest.mark.parametrize(
  "given, environ, text",
  [
    # In the script of sbatch, not under srun.
    (Place(), without(SLURM, "SLURM_STEP_NODELIST"), "would train alone"),
    (Place(), OPEN_MPI_5, "does not say where process 0 listens"),
    (Place(), TORCHRUN, "torchrun has 8 processes"),
    (Place(processes=2), SLURM, "--processes=2, but Slurm started 4"),
    (Place(), {"WORLD_SIZE": "two"}, "WORLD_SIZE='two'"),
    (Place(coordinator="h:1"), {}, "--processes=N and --process=I"),
    (Place(coordinator="h:1", processes=2), {}, "need --process=I"),
    (Place(processes=2, process=1), {}, "need --coordinator=HOST:PORT"),
    (
      Place(coordinator="h:1", processes=2, process=2),
      {},
      "expected 0 to 1",
    ),
    (Place(coordinator="h", processes=2, process=0), {}, "HOST:PORT"),
    (Place(coordinator="h:99999", processes=2, process=0), {}, "HOST:PORT"),
    (Place(processes=1, process=1), {}, "no --process but 0"),
  ],
)
def test_place_that_is_wrong_is_refused(given, environ, text):
  with pytest.raises(errors.UserError, match=text):
    find_place(given, environ)
