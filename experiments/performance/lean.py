"""Training steps in plain JAX, as fast as XLA lets them be on CPUs.

What `mmjax bench --peer=lean` measures the library against: the same models
without modules, sharding, metrics, clipping or a check for NaN. Layers are
unrolled; norms and attention have backward rules of their own, left to
autodiff XLA computes their statistics again in every consumer; attention is in
b h n k; queries, keys and values come from slices of one weight. With
`precision="bfloat16"` activations stay float32, and the operands of products
are bfloat16, in the backward pass too.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.bench import candidate
from mmjax.bench.candidate import Tower, Work
from mmjax.core import errors

EPSILON = 1e-8  # Of AdamW.
HIDDEN_WORDS = 0.15  # Share of the text.
Params = Any  # Nested dicts of float32 arrays.


# --- Products, norm, attention ---


def _dot32(spec, a, b):
  return jnp.einsum(spec, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dot16(spec, a, b):
  """Bfloat16 operands, float32 result."""
  a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _dot16_forward(spec, a, b):
  # Casts of what is bfloat16 already are free: operands may come cast.
  small = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  kinds = jnp.zeros((0,), a.dtype), jnp.zeros((0,), b.dtype)
  return _dot16(spec, *small), (*small, *kinds)


def _dot16_backward(spec, saved, g):
  a, b, like_a, like_b = saved
  operands, out = spec.split("->")
  of_a, of_b = operands.split(",")
  g = g.astype(jnp.bfloat16)
  by_a = _dot16(f"{out},{of_b}->{of_a}", g, b)
  by_b = _dot16(f"{of_a},{out}->{of_b}", a, g)
  return by_a.astype(like_a.dtype), by_b.astype(like_b.dtype)


_dot16.defvjp(_dot16_forward, _dot16_backward)
DOTS: dict[str, Callable[..., jax.Array]] = {
  "float32": _dot32,
  "bfloat16": _dot16,
}


@jax.custom_vjp
def _norm(x, scale, bias):
  return _norm_forward(x, scale, bias)[0]


def _norm_forward(x, scale, bias):
  mean = jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
  rate = jax.lax.rsqrt(variance + 1e-6)
  return (x - mean) * rate * scale + bias, (x, mean, rate, scale)


def _norm_backward(saved, g):
  x, mean, rate, scale = saved
  y = (x - mean) * rate
  lead = tuple(range(x.ndim - 1))
  gs = g * scale
  along = jnp.mean(gs * y, axis=-1, keepdims=True)
  by_x = rate * (gs - jnp.mean(gs, axis=-1, keepdims=True) - y * along)
  return by_x, jnp.sum(g * y, axis=lead), jnp.sum(g, axis=lead)


_norm.defvjp(_norm_forward, _norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(dot, q, k, v):
  """Softmax attention, all b h n k; queries come scaled."""
  return _attend_forward(dot, q, k, v)[0]


def _attend_forward(dot, q, k, v):
  p = jax.nn.softmax(dot("bhqk,bhmk->bhqm", q, k), axis=-1)
  if dot is _dot16:
    p, q, k, v = (x.astype(jnp.bfloat16) for x in (p, q, k, v))
  return dot("bhqm,bhmk->bhqk", p, v), (q, k, v, p)


def _attend_backward(dot, saved, g):
  q, k, v, p = saved
  by_v = dot("bhqm,bhqk->bhmk", p, g)
  by_p = dot("bhqk,bhmk->bhqm", g, v)
  wide = p.astype(jnp.float32)
  by_logits = wide * (by_p - jnp.sum(wide * by_p, axis=-1, keepdims=True))
  by_q = dot("bhqm,bhmk->bhqk", by_logits, k)
  return by_q, dot("bhqm,bhqk->bhmk", by_logits, q), by_v


_attend.defvjp(_attend_forward, _attend_backward)


# --- Parts of models: parameters, and what is done with them ---


class _Fresh:
  """Makes parameters; matrices as by Glorot."""

  def __init__(self, seed: int = 0):
    self._rng = np.random.default_rng(seed)

  def normal(self, *shape: int, std: float = 0.02) -> jax.Array:
    return jnp.asarray(self._rng.normal(0, std, shape), jnp.float32)

  def linear(self, n: int, m: int) -> Params:
    std = (2 / (n + m)) ** 0.5
    return {"w": self.normal(n, m, std=std), "b": jnp.zeros(m)}

  def norm(self, n: int) -> Params:
    return {"scale": jnp.ones(n), "bias": jnp.zeros(n)}

  def block(self, d: int, mlp_dim: int, context: int = 0) -> Params:
    e = context or d
    names = ("q", "k", "v")
    parts = [self.linear(n, d) for n in (d, e, e)]
    if context:
      attention = dict(zip(names, parts, strict=True))
    else:
      w = jnp.stack([p["w"] for p in parts], axis=0)  # 3 d d
      attention = {"qkv": {"w": w, "b": jnp.zeros((3, d))}}
    return {
      **attention,
      "out": self.linear(d, d),
      "norm1": self.norm(d),
      "norm2": self.norm(d),
      "up": self.linear(d, mlp_dim),
      "down": self.linear(mlp_dim, d),
    }

  def stack(self, tower: Tower, context: int = 0) -> Params:
    blocks = [
      self.block(tower.width, tower.mlp_dim, context)
      for _ in range(tower.layers)
    ]
    return {"blocks": blocks, "norm": self.norm(tower.width)}

  def image(self, work) -> Params:
    d, p = work.image.width, work.patch_size
    return {
      "patches": self.linear(p * p * 3, d),
      "positions": self.normal((work.image_size // p) ** 2, d),
      **self.stack(work.image),
    }

  def text(self, work) -> Params:
    d = work.text.width
    return {
      "table": self.normal(work.vocab_size, d),
      "positions": self.normal(work.text_tokens, d),
      **self.stack(work.text),
    }

  def token_head(self, d: int, classes: int) -> Params:
    return {
      "hidden": self.linear(d, d),
      "norm": self.norm(d),
      "logits": self.linear(d, classes),
    }


class _Model:
  """What is computed with parameters, all products by one `dot`."""

  def __init__(self, dot: Callable[..., jax.Array]):
    self.dot = dot

  def linear(self, p, x):
    lead = "abc"[: x.ndim - 1]
    return self.dot(f"{lead}y,yz->{lead}z", x, p["w"]) + p["b"]

  def norm(self, p, x):
    return _norm(x, p["scale"], p["bias"])

  def block(self, p, x, heads, context=None):
    y = self.norm(p["norm1"], x)
    if context is None:
      w, b = p["qkv"]["w"], p["qkv"]["b"]
      q, k, v = (self.linear({"w": w[i], "b": b[i]}, y) for i in range(3))
    else:
      q = self.linear(p["q"], y)
      k, v = (self.linear(p[name], context) for name in ("k", "v"))
    q = q * (q.shape[-1] // heads) ** -0.5
    q, k, v = (_split(z, heads) for z in (q, k, v))
    y = _attend(self.dot, q, k, v)  # b h n k
    y = y.transpose(0, 2, 1, 3).reshape(x.shape)  # b n (h k)
    x = x + self.linear(p["out"], y)
    y = jax.nn.gelu(self.linear(p["up"], self.norm(p["norm2"], x)))
    return x + self.linear(p["down"], y)

  def stack(self, p, x, tower, context=None):
    for block in p["blocks"]:
      x = self.block(block, x, tower.heads, context)
    return self.norm(p["norm"], x)

  def image(self, p, patches, tower, visible=None, is_hidden=None):
    positions = p["positions"][None]
    if visible is not None:
      patches = jnp.take_along_axis(patches, visible[:, :, None], axis=1)
      positions = p["positions"][visible]
    x = self.linear(p["patches"], patches)
    if is_hidden is not None:
      x = jnp.where(is_hidden[:, :, None], p["mask_token"], x)
    return self.stack(p, x + positions, tower)

  def text(self, p, ids, tower):
    return self.stack(p, p["table"][ids] + p["positions"][None], tower)

  def token_head(self, p, x):
    x = jax.nn.gelu(self.linear(p["hidden"], x))
    return self.linear(p["logits"], self.norm(p["norm"], x))


def _split(x, heads):
  b, n, d = x.shape
  return x.reshape(b, n, heads, d // heads).transpose(0, 2, 1, 3)  # b h n k


def _patches(pixels, size):
  b, h, w, c = pixels.shape
  x = pixels.reshape(b, h // size, size, w // size, size, c)
  x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, size * size * c)
  return x.astype(jnp.float32) / 127.5 - 1.0


def _entropy(logits, labels):
  own = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
  return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - own)


def _unit(x):
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


# --- Kinds of work: (parameters, loss of parameters and batch, batch) ---


def _classification(work, dot):
  fresh, model = _Fresh(), _Model(dot)
  params = {
    "image": fresh.image(work),
    "head": fresh.linear(work.image.width, work.num_classes),
  }
  rng = np.random.default_rng(1)
  batch = {
    "image": _pixels(work, rng),
    "label": rng.integers(0, work.num_classes, work.batch_size),
  }

  def loss(p, batch):
    patches = _patches(batch["image"], work.patch_size)
    x = jnp.mean(model.image(p["image"], patches, work.image), axis=1)
    return _entropy(model.linear(p["head"], x), batch["label"])

  return params, loss, batch


def _contrastive(work, dot):
  fresh, model = _Fresh(), _Model(dot)
  params = {
    "image": fresh.image(work),
    "text": fresh.text(work),
    "spaces": _spaces(fresh, work),
    "scale": jnp.asarray(np.log(10.0), jnp.float32),
    "bias": jnp.asarray(-10.0),
  }
  rng = np.random.default_rng(1)
  shape = work.batch_size, work.text_tokens
  batch = {
    "image": _pixels(work, rng),
    "text": rng.integers(0, work.vocab_size, shape),
  }

  def loss(p, batch):
    patches = _patches(batch["image"], work.patch_size)
    a = model.image(p["image"], patches, work.image)
    b = model.text(p["text"], batch["text"], work.text)
    logits = _similarity(model, p, a, b) + p["bias"]
    signs = 2 * jnp.eye(len(logits)) - 1
    return jnp.mean(jnp.sum(jax.nn.softplus(-signs * logits), axis=1))

  return params, loss, batch


def _spaces(fresh, work):
  widths = work.image.width, work.text.width
  return [fresh.normal(d, widths[0], std=d**-0.5) for d in widths]


def _similarity(model, p, *sequences):
  a, b = (
    _unit(model.dot("bd,de->be", jnp.mean(x, axis=1), w))
    for x, w in zip(sequences, p["spaces"], strict=True)
  )
  return jnp.exp(p["scale"]) * (a @ b.T)


def _pixels(work, rng):
  size = work.image_size
  shape = work.batch_size, size, size, 3
  return rng.integers(0, 256, shape, np.uint8)


def _flava(work, dot):
  """Contrastive, matching, masked words and patches, one pass of the fusion.

  With hidden patches dropped: one masked pass of each tower for all, and a
  narrow predictor of two layers, in which hidden patches attend to visible
  ones (Fu et al. 2024, arXiv:2401.14391). Else as FLAVA does it (Singh et al.
  2022, arXiv:2112.04482): both towers twice, clean and masked.
  """
  model, drops = _Model(dot), work.drops
  image, text = work.image, work.text
  params, batch = _flava_params(work), _flava_batch(work)
  num_patches = (work.image_size // work.patch_size) ** 2

  def towers(p, batch):
    """Features for the contrastive loss, and the masked ones."""
    patches = _patches(batch["image"], work.patch_size)
    words = model.text(p["text"], batch["masked"], text)
    if drops:
      pixels = model.image(p["image"], patches, image, batch["visible"])
      return (pixels, words), (pixels, words)
    grid = jnp.arange(num_patches)[None, None]
    is_hidden = jnp.any(batch["hidden"][:, :, None] == grid, axis=1)
    masked = model.image(p["image"], patches, image, is_hidden=is_hidden)
    clean = model.image(p["image"], patches, image)
    return (clean, model.text(p["text"], batch["text"], text)), (masked, words)

  def predicted(p, pixels, fused, hidden):
    if not drops:
      return _rows(fused, hidden)
    own = p["predictor"]
    x = own["token"] + own["positions"][hidden]  # b k d/2
    context = model.norm(own["context"], pixels)
    return model.stack(own, x, _narrow(work), context)

  def loss(p, batch):
    clean, (pixels, words) = towers(p, batch)
    logits = _similarity(model, p, *clean)
    pairs = jnp.arange(len(logits))
    total = (_entropy(logits, pairs) + _entropy(logits.T, pairs)) / 2
    parts = (("image", pixels), ("text", words))
    x = [model.linear(p["fusion"][name], x) for name, x in parts]
    fused = model.stack(p["fusion"], jnp.concatenate(x, axis=1), work.fusion)
    pooled = model.linear(p["matching"], jnp.mean(fused, axis=1))
    total += _entropy(pooled, batch["match"])
    x = _rows(fused[:, pixels.shape[1] :], batch["places"])
    labels = jnp.take_along_axis(batch["text"], batch["places"], axis=1)
    total += _entropy(model.token_head(p["mlm"], x), labels)
    x = predicted(p, pixels, fused, batch["hidden"])
    return total + _entropy(model.token_head(p["vtp"], x), batch["codes"])

  return params, loss, batch


def _narrow(work):
  """The predictor: half as wide, two layers."""
  tower = work.image
  heads = max(1, tower.heads // 2)
  return Tower(tower.width // 2, 2, heads, tower.mlp_dim // 2)


def _flava_params(work):
  fresh = _Fresh()
  d, joint = work.image.width, work.fusion.width
  params = {
    "image": fresh.image(work),
    "text": fresh.text(work),
    "fusion": {
      "image": fresh.linear(d, joint),
      "text": fresh.linear(work.text.width, joint),
      **fresh.stack(work.fusion),
    },
    "spaces": _spaces(fresh, work),
    "scale": jnp.asarray(np.log(1 / 0.07), jnp.float32),
    "matching": fresh.linear(joint, 2),
    "mlm": fresh.token_head(joint, work.vocab_size),
  }
  if not work.drops:
    params["image"]["mask_token"] = fresh.normal(d)
    return {**params, "vtp": fresh.token_head(joint, work.num_codes)}
  narrow, rows = _narrow(work), len(params["image"]["positions"])
  params["predictor"] = {
    "context": fresh.norm(d),
    "token": fresh.normal(narrow.width),
    "positions": fresh.normal(rows, narrow.width),
    **fresh.stack(narrow, context=d),
  }
  return {**params, "vtp": fresh.token_head(narrow.width, work.num_codes)}


def _flava_batch(work):
  rng = np.random.default_rng(1)
  b, t = work.batch_size, work.text_tokens
  n = (work.image_size // work.patch_size) ** 2
  k = round(n * (work.hidden_ratio or 0.4))
  order = np.stack([rng.permutation(n) for _ in range(b)])
  places = np.stack([rng.permutation(t) for _ in range(b)])
  return {
    "image": _pixels(work, rng),
    "text": rng.integers(0, work.vocab_size, (b, t)),
    "masked": rng.integers(0, work.vocab_size, (b, t)),
    "places": places[:, : round(HIDDEN_WORDS * t)],
    "hidden": np.sort(order[:, :k], axis=1),
    "visible": np.sort(order[:, k:], axis=1),
    "codes": rng.integers(0, work.num_codes, (b, k)),
    "match": rng.integers(0, 2, b),
  }


def _rows(x, places):
  return jnp.take_along_axis(x, places[:, :, None], axis=1)


KINDS = {
  "image_classification": _classification,
  "contrastive": _contrastive,
  "flava": _flava,
}


# --- The step ---


def _adamw(params, moments, grads, count):
  """One update (Loshchilov & Hutter 2019); returns parameters and moments."""
  b1, b2, decay = candidate.B1, candidate.B2, candidate.WEIGHT_DECAY
  first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments[0], grads)
  second = jax.tree.map(
    lambda m, g: b2 * m + (1 - b2) * g * g, moments[1], grads
  )
  c1, c2 = 1 - b1**count, 1 - b2**count

  def update(p, m, v):
    change = m / c1 / (jnp.sqrt(v / c2) + EPSILON) + decay * p
    return p - candidate.LR * change

  return jax.tree.map(update, params, first, second), (first, second)


class Lean:
  """A step that is compiled, and its state."""

  def __init__(self, work: Work, precision: str):
    params, loss, batch = KINDS[work.kind](work, DOTS[precision])

    def step(params, moments, count, batch):
      value, grads = jax.value_and_grad(loss)(params, batch)
      count = count + 1
      return *_adamw(params, moments, grads, count), count, value

    zeros = jax.tree.map(jnp.zeros_like, params)
    moments = (zeros, jax.tree.map(jnp.copy, zeros))
    self._state = (params, moments, jnp.zeros(()))
    self._batch = jax.device_put(
      jax.tree.map(
        lambda x: x.astype(np.int32) if x.dtype == np.int64 else x, batch
      )
    )
    start = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1, 2)).lower(
      *self._state, self._batch
    )
    self.compiled = lowered.compile()
    secs = time.perf_counter() - start
    memory = self.compiled.memory_analysis()
    self.facts = {
      "compile_secs": secs,
      "params": float(sum(x.size for x in jax.tree.leaves(params))),
      "temp_bytes": float(memory.temp_size_in_bytes),
      "argument_bytes": float(memory.argument_size_in_bytes),
      "losses": [float(self._step()) for _ in range(candidate.PARITY_STEPS)],
    }

  def _step(self):
    *state, loss = self.compiled(*self._state, self._batch)
    self._state = tuple(state)
    return loss

  def run(self, num_steps: int) -> None:
    """Runs so many steps and waits for them."""
    for _ in range(num_steps):
      self._step()
    jax.block_until_ready(self._state)


def make(work: Work, precision: str) -> Lean:
  """Makes the step of some work, and compiles it.

  Raises:
    UserError: unknown kind of work or precision.
  """
  if work.kind not in KINDS:
    raise errors.unknown("kind of work of the lean step", work.kind, KINDS)
  if precision not in DOTS:
    raise errors.unknown("precision of the lean step", precision, DOTS)
  return Lean(work, precision)
