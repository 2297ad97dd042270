"""Thousands of damaged files: no crash, no hang, no memory beyond the limit.

In a process of its own: a decoder that crashes takes its process with it.
"""

import io
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

MAX_PIXELS = 1_000_000
SECONDS = 5  # For one file.
GROWTH_MIB = 400  # Of the process; a picture at the limit takes 4 to 16 MiB.
PER_FORM = 220


def originals():
  """A small file of each form, with the decoder that reads it."""
  import av
  import soundfile
  from PIL import Image

  from mmjax.data.transforms import audio, image, video

  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
  pictures = [Image.fromarray(x) for x in frames]
  for form in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
    file = io.BytesIO()
    pictures[0].save(file, form)
    yield file.getvalue(), lambda b: image.decode(b, MAX_PIXELS)
  for form in ("WEBP", "GIF"):
    file = io.BytesIO()
    pictures[0].save(file, form, save_all=True, append_images=pictures[1:])
    yield file.getvalue(), lambda b: video.decode(b, MAX_PIXELS)
  wave = 0.5 * np.sin(np.arange(4000) / 9)
  for form in ("WAV", "FLAC", "OGG"):
    file = io.BytesIO()
    soundfile.write(file, wave, 8000, format=form)
    yield file.getvalue(), lambda b: audio.decode(b, 10.0)
  file = io.BytesIO()
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("mpeg4", rate=4)
    stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
    for x in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(x, "rgb24")))
    container.mux(stream.encode())
  yield file.getvalue(), lambda b: video.decode(b, MAX_PIXELS)


def mutated(content, rng):
  """Changes, cuts, doubles, fills or swaps stretches of a file."""
  data = bytearray(content)
  for _ in range(rng.integers(1, 6)):
    # Headers matter more than pixels: half of the changes are there.
    most = min(64, len(data)) if rng.random() < 0.5 else len(data)
    at = int(rng.integers(max(1, most)))
    kind = rng.integers(6)
    length = int(rng.integers(1, 40))
    if kind == 0:
      data[at : at + 1] = rng.bytes(1)
    elif kind == 1:
      data[at : at + 4] = [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"][
        rng.integers(3)
      ]
    elif kind == 2:
      del data[at:]
    elif kind == 3:
      data[at:at] = data[at : at + length]
    elif kind == 4:
      del data[at : at + length]
    else:
      data[at : at + length] = rng.bytes(length)
  return bytes(data)


def main():
  """Decodes them all; prints how many could be read and how many not."""

  def stop(*_):
    raise TimeoutError  # A BaseException would do: no decoder may eat it.

  signal.signal(signal.SIGALRM, stop)
  rng = np.random.default_rng(1)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  read = refused = 0
  for content, decode in originals():
    decode(content)
    for _ in range(PER_FORM):
      damaged = mutated(content, rng)
      signal.alarm(SECONDS)
      try:
        decode(damaged)
        read += 1
      except ValueError as e:
        assert not isinstance(e.__cause__, TimeoutError), "too slow"
        refused += 1
      signal.alarm(0)
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print(read, refused, (after - before) // 1024)


def test_damaged_files_are_refused_or_read():
  done = subprocess.run(
    [sys.executable, "-W", "error::ResourceWarning", __file__],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
    cwd=Path(__file__).parents[2],
    env={"PYTHONPATH": str(Path(__file__).parents[2])},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  read, refused, growth = map(int, done.stdout.split())
  assert read + refused >= 2000
  assert min(read, refused) > 100  # Both happen.
  assert growth < GROWTH_MIB


if __name__ == "__main__":
  main()
