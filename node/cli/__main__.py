"""`python -m node.cli` is `hypermesh`, also where the command is not on the PATH."""

from node.cli import app

app(prog_name="hypermesh")
