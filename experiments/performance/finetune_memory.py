"""Memory of a fine-tuning step of ViT-B/16, by what is trained.

python experiments/performance/finetune_memory.py [EXAMPLES [LAYERS [REMAT]]]

Compiles the step and asks the compiler: nothing runs. Arguments are the state
(parameters, moments of Adam) and the batch; temporaries are gradients and
activations. LAYERS is "scanned" or "unrolled" (the last block can be trained
alone in the latter only), REMAT what of a block the backward pass computes
again, see `models.layers.options.REMAT_POLICIES`. With many examples
activations outweigh all else, and methods differ less; of unrolled layers
XLA keeps more than it must on CPUs.
"""

import sys

import jax
import ml_collections as mlc

from mmjax.build import experiment, settings

HEAD, LAST = "heads_label/.*", "last block"
METHODS = {
  "full": dict(),
  "LoRA, rank 8": dict(
    lora=dict(rank=8, targets=(".*attention/(query|value)",)),
    trainable=(HEAD,),
  ),
  LAST: dict(trainable=(HEAD, "encoders_image/stack/(layer_11|norm)/.*")),
  "bias only": dict(trainable=(HEAD, ".*/bias")),
  "head only": dict(trainable=(HEAD,)),
}


def config(
  examples: int, scan: bool, remat: str, finetune: dict
) -> mlc.ConfigDict:
  """Classification of pictures of 224 pixels."""
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic", image=dict(size=224), label=dict(field="group")
  )
  c.model = dict(
    encoders=dict(
      image=dict(
        name="vit", patch_size=16, size="B", stack=dict(scan=scan, remat=remat)
      )
    ),
    precision="float32",
  )
  c.tasks = dict(main=dict(objectives=dict(label=dict(name="classification"))))
  c.train = dict(batch_size=examples)
  c.finetune = finetune
  return settings.resolve(c)


def main(
  examples: str = "8", layers: str = "scanned", remat: str = "full"
) -> None:
  """Prints a row for each method."""
  device = jax.devices()[0].device_kind
  print(f"{examples} examples, layers {layers}, remat={remat}, {device}")
  print("method        trained  arguments  temporaries  together  of full")
  full = 0
  for name, finetune in METHODS.items():
    if layers == "scanned" and name == LAST:
      continue
    made = experiment.prepare(
      config(int(examples), layers == "scanned", remat, finetune),
      jax.devices()[:1],
    )
    memory = made.lower_step().compile().memory_analysis()
    arguments = memory.argument_size_in_bytes / 2**20
    temporaries = memory.temp_size_in_bytes / 2**20
    together = arguments + temporaries
    full = full or together
    print(
      f"{name:12}{made.num_params()[1]:>9,}{arguments:>7.0f} MiB"
      f"{temporaries:>9.0f} MiB{together:>6.0f} MiB{together / full:>9.1%}",
      flush=True,
    )


if __name__ == "__main__":
  main(*sys.argv[1:])
