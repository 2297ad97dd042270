"""Other libraries doing the same step, for `mmjax bench --peer=NAME[:OPTION]`.

  libraries.py             imports a peer, or says how to install it
  batches.py               the one batch of a work, the same for all peers
  torch_step.py            a training step in PyTorch, as its users write it
  timm_vit.py              timm's VisionTransformer
  open_clip_towers.py      open_clip's two towers with the loss of SigLIP
  transformers_models.py   FLAVA, CLIP, SigLIP and ViLT of transformers
  big_vision_models.py     ViT and two towers of a checkout of big_vision

Each makes the model of a `Work` with random weights, as near to mmjax's as its
own options allow: no class token and the mean of all tokens where it can. What
it does otherwise, its `facts["note"]` says. Nothing is downloaded.

Here may be no model of our own, and no import of a peer outside of a function:
who has none of them imports this room all the same.
"""

# Name -> "module:function". All are called as make(work, precision, option="").
PEERS: dict[str, str] = {
  "timm": "mmjax.bench.peers.timm_vit:make",
  "open_clip": "mmjax.bench.peers.open_clip_towers:make",
  "flava": "mmjax.bench.peers.transformers_models:make_flava",
  "clip": "mmjax.bench.peers.transformers_models:make_clip",
  "siglip": "mmjax.bench.peers.transformers_models:make_siglip",
  "vilt": "mmjax.bench.peers.transformers_models:make_vilt",
  "big_vision": "mmjax.bench.peers.big_vision_models:make",
}
# What OPTION is: of big_vision the checkout, else "eager" or "compile" (by
# default compiled on a GPU and eager on a CPU, where compiling gains little).
