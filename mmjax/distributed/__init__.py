"""Many processes as one job: start, agree, watch, stop together.

`start.py` joins the processes, `environment.py` knows what launchers say,
`agreement.py` compares what must not differ, `watchdog.py` says who is gone
or late, `preemption.py` stops all after the same step. `job.py` holds them
together; a run of one process needs none of it.
"""
