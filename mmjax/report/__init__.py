"""One HTML page from what runs wrote; knows files, not mmjax.

Start with `page.py`, which writes the page. `runs.py` and `evaluations.py`
read a workdir; `curves.py`, `plots.py`, `heatmap.py` and `displays.py` turn
numbers and artifacts into what `templates/` draws; `results.py` is the table
on the terminal. Nothing here fails on a run that is damaged or still going:
what is missing becomes a note on the page.
"""
