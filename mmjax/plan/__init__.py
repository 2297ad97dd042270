"""Plans a run on hardware that is not there.

Compiles the very step that `mmjax train` runs, ahead of time, and reads from
the compiled program what it costs: memory by kind, operations, traffic of the
memory, collectives by mesh axis. Start at `compile.py`; `topologies.py` has
the chips, `hlo.py` reads programs. Nothing here runs on a device.
"""
