"""Where arrays live: the mesh, the rules, the placement of a state.

Models name axes (`mmjax.core.axes`); `rules.py` maps the names to mesh axes;
`partition.py` turns both into shardings and prints them.
"""

from mmjax.sharding.rules import RULES

__all__ = ["RULES"]
