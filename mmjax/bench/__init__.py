"""How fast it is, beside others on the same machine in the same run.

  pictures.py     files like photographs, made of the starter pictures
  candidates.py   pipelines from such files to batches: ours, and peers
  rounds.py       runs candidates in turn, each in a process of its own
  candidate.py    what a training step to be timed is, and its work
  work.py         the work of a config, as peers are told it
  own_step.py     the step that `mmjax train` would run
  peak.py         a large matrix product, what MFU divides by
  makers.py       makes candidates in their processes
  steps.py        times the step of a config, beside peers
  suite.py        the table of bounds on CPUs; suite_rows.py its rows
  suite_gpu.py    what is asked of one GPU
  tables.py       what is printed
  machine.py      what it was measured on, and its free memory
  peers/          other libraries doing the same step
  storage.py      reading shards, starting up, memory, mixtures
  generation.py   tokens a second, and time to the first
  profiling.py    where the time of a step goes: profile_kinds.py says to what
                  an operation belongs, profile_trace.py how long it took

Peers are imported where they run, and left out where they are not installed.
"""
