"""How to adapt a trained model to something else.

`freeze.py` says which parameters are trained and from when on, `layer_decay.py`
how fast; `lora.py` adds small matrices beside frozen ones, `lora_file.py`
keeps these alone. `surgery.py` moves parameters of one model into another that
is not quite the same.
"""
