"""How fast it is, beside others on the same machine in the same run.

  pictures.py     files like photographs, made of the starter pictures
  candidates.py   pipelines from such files to batches: ours, and peers
  rounds.py       runs candidates in turn, each in a process of its own
  storage.py      reading shards, starting up, memory, mixtures
  generation.py   tokens a second, and time to the first

Peers are imported where they run, and left out where they are not installed.
"""
