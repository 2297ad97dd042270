"""From disk to host batches of numpy arrays: sources, transforms, loader.

  sources.py     random access to examples by name; `SOURCES` lists them
  builders.py    TFDS builders of the starter set, written without TensorFlow
  starter/       the embedded pictures, clips and speech, and their tokenizer
  files/         sources from files as users have them: folders, tables, tar
  synthetic.py   pictures drawn on demand
  easy_vqa.py    questions about pictures of one shape, of a package
  chat.py        messages of a conversation, and how roles become text
  conversations.py           conversations in a file, one a line
  starter_conversations.py   conversations made from tables by templates
  packing.py     several examples to a row
  tokenizer.py   text <-> ids
  transforms/    one example in, one example out; each declares its fields
  masks.py       what is hidden from the model
  examples.py    `Pipeline`: a source and its transforms, one example at a time
  pipeline.py    config -> `Pipeline`; start here
  order.py       which example comes when
  mixture.py     which tasks a step takes
  loader.py      `Pipeline` -> batches, a function of (seed, step)
  workers.py     batches made in worker processes; `worker_process` is in each
  prefetch.py    batches to the device, ahead of the training loop
  broken.py      examples that cannot be used, and when they are too many
  prepare.py     a data set -> shards that are fast in any order; what each
                 example becomes, or why it is left out: prepare_example.py
  check.py       what is in a data set, and what is broken

No jax here and no model: a batch leaves as numpy. TFDS, Grain, Pillow's
decoders and `tokenizers` are imported where they are used.

A source of your own is a class with `__len__` and `__getitem__`, named in a
config as "package.module:Class".
"""

from mmjax.data.sources import SOURCES, open_source

__all__ = ["SOURCES", "open_source"]
