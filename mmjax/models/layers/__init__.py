"""Building blocks: each module takes arrays and knows no modality.

`projection.py` owns every weight matrix, `attention.py` the attention
function, `transformer.py` the one `Block` and `Stack` that all encoders share.
"""
