"""The order of the examples: a permutation of each epoch, computed in place.

A keyed bijection instead of a shuffled list: no memory, any position at once,
and the same on every machine and with every version of every library.
"""

import numpy as np
from jaxtyping import Float64, Int, UInt64

ROUNDS = 6
MIN_HALF_BITS = 3  # Fewer bits would mix badly.
STREAM = np.uint64(1 << 63)  # Keeps `uniform` apart from the shuffles.
BLOCK = 256  # Positions among which `spread` is even.
GOLDEN = (5**0.5 - 1) / 2


def shuffle(
  positions: Int[np.ndarray, " b"], length: int, seed: int
) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
  """Returns the epoch and the index of the example at each position.

  Position p belongs to epoch p // length; each epoch holds every index once,
  in an order of its own.

  Source: a Feistel network with cycle walking; Black and Rogaway 2002,
  "Ciphers with arbitrary finite domains", section 4.
  """
  epochs, offsets = np.divmod(positions, length)
  if length == 1:
    return epochs, offsets
  half = max(MIN_HALF_BITS, ((length - 1).bit_length() + 1) // 2)
  key = _mix(
    _mix(np.full(len(positions), seed, np.uint64)) ^ epochs.astype(np.uint64)
  )
  x = _feistel(offsets.astype(np.uint64), key, half)
  # The network permutes a power of four; walk on until inside the epoch.
  while (outside := x >= np.uint64(length)).any():
    x[outside] = _feistel(x[outside], key[outside], half)
  return epochs, x.astype(np.int64)


def walk(
  epoch: int, index: int, length: int, seed: int, count: int
) -> Int[np.ndarray, " k"]:
  """Returns what to try, in this order, in place of a broken example.

  Up to `count` distinct other examples, a walk of its own for each (seed,
  epoch, index).
  """
  key = np.array([seed], np.uint64)
  for value in (epoch, index):
    key = _mix(key) ^ np.uint64(value)
  # One more, since the example itself may be among them.
  positions = np.arange(min(count + 1, length))
  _, others = shuffle(positions, length, int(_mix(key)[0]))
  return others[others != index][:count]


def uniform(
  positions: Int[np.ndarray, " b"], seed: int
) -> Float64[np.ndarray, " b"]:
  """Returns a number in [0, 1) for each position, as if drawn at random."""
  key = _mix(np.full(len(positions), seed, np.uint64) ^ STREAM)
  mixed = _mix(key ^ _mix(positions.astype(np.uint64)))
  return (mixed >> np.uint64(11)) * 2.0**-53  # As many bits as a double has.


def spread(
  positions: Int[np.ndarray, " b"], seed: int
) -> Float64[np.ndarray, " b"]:
  """As `uniform`, but more evenly: shares come out as they were asked for.

  Of each `BLOCK` positions one falls into each of as many equal parts, and the
  place in the parts moves on by the golden ratio from block to block. So a
  share is missed by a few in the last block, not by the square root of all.
  Each position by itself is as random.

  Source: systematic sampling, Madow and Madow 1944; the ratio, Weyl 1916.
  """
  blocks, parts = shuffle(positions, BLOCK, int(np.uint64(seed) ^ STREAM))
  first = uniform(np.zeros(1, np.int64), seed)
  return (parts + (first + GOLDEN * blocks) % 1.0) / BLOCK


def _feistel(
  x: UInt64[np.ndarray, " b"], key: UInt64[np.ndarray, " b"], half: int
) -> UInt64[np.ndarray, " b"]:
  bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
  left, right = x >> bits, x & mask
  for i in range(ROUNDS):
    # Each round has a key of its own; the high bits are the better mixed.
    mixed = _mix(key + np.uint64(i) ^ _mix(right)) >> np.uint64(64 - half)
    left, right = right, left ^ mixed
  return (left << bits) | right


def _mix(x: UInt64[np.ndarray, " b"]) -> UInt64[np.ndarray, " b"]:
  # SplitMix64: Steele et al. 2014, "Fast splittable pseudorandom number
  # generators", figure 16. Arrays wrap around on overflow.
  x = x + np.uint64(0x9E3779B97F4A7C15)
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))
