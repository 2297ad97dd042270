"""mmjax: pretrain and fine-tune multimodal transformers in JAX/Flax.

data -> model -> objectives -> train step -> loop; everything else stands at
the side. `docs/architecture.md` shows the rooms and the arrows.

Importing this package imports nothing else: `mmjax.core`, `mmjax.models`, ...
are imported where they are used.
"""

__version__ = "0.1.0"
