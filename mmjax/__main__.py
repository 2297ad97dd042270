"""`python -m mmjax VERB --flags`."""

from mmjax.cli import main

if __name__ == "__main__":
  main.run()
