import pytest

from mmjax.distributed import stragglers
from mmjax.distributed.stragglers import Beat, Pace, Stragglers


def beat(step, stage="step", secs=0.1, waited=0.0):
  return Beat(step=step, stage=stage, stage_secs=secs, input_secs=waited)


def find(beats, secs=5.0):
  return list(Stragglers(secs).find(dict(enumerate(beats)), 0.0))


def test_who_stays_behind_is_named_with_its_place():
  ((process, text),) = find(
    [beat(7, "after", 6.0), beat(7, "input", 6.0), beat(7, "after", 6.0)]
  )

  assert process == 1
  assert "waiting for its data before step 7 for 6 s" in text


@pytest.mark.parametrize(
  "beats",
  [
    [beat(7, secs=60.0), beat(7, secs=60.0)],  # A long step of all.
    [beat(7, "after", 60.0), beat(7, "after", 60.0)],  # All evaluate.
    [beat(7, secs=1.0), beat(9, secs=1.0)],  # Only just behind.
    [beat(7, "input", 60.0)],  # Alone.
  ],
)
def test_who_keeps_nobody_waiting_is_not_named(beats):
  assert find(beats) == []


def shares(*input_shares, secs=5.0, ticks=12):
  """What is found while processes spend such shares on their data."""
  judge, found = Stragglers(secs), []
  for t in range(ticks):
    beats = {
      p: beat(t, waited=float(t * share))
      for p, share in enumerate(input_shares)
    }
    found += judge.find(beats, float(t))
  return found


def test_who_waits_for_data_alone_is_named_once():
  ((process, text),) = shares(0.05, 0.9, 0.0, 0.1)

  assert process == 1
  assert "90% of the last 5 s" in text


@pytest.mark.parametrize("input_shares", [(0.9, 0.8), (0.4, 0.0)])
def test_all_or_little_waiting_names_nobody(input_shares):
  assert shares(*input_shares) == []


def test_named_again_after_a_minute():
  assert len(shares(0.0, 0.9, ticks=70)) == 2


def test_old_waiting_is_forgotten():
  judge = Stragglers(5.0)
  for t in range(20):
    beats = {0: beat(t), 1: beat(t, waited=float(min(t, 3)))}

    found = list(judge.find(beats, float(t)))

    assert not found or t < 9


def test_pace_adds_up_the_waiting(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(stragglers.time, "monotonic", lambda: now[0])
  pace = Pace()
  for at, step, stage in [
    (1.0, 1, "input"),
    (3.0, 1, "step"),
    (4.0, 1, "after"),
    (5.0, 2, "input"),
  ]:
    now[0] = at
    pace.enter(step, stage)
  now[0] = 5.5

  got = pace.beat()

  assert (got.step, got.stage) == (2, "input")
  assert got.stage_secs == pytest.approx(0.5)
  assert got.input_secs == pytest.approx(2.5)
