"""Worker threads and the queue their results come back through.

`Completions` is one descriptor for the event loop: when it is readable, `drain()` returns
`[(token, value), ...]` in the order posted. `Workers` runs jobs without the interpreter lock; the
value of a failed job is the exception object. `sign` overtakes other jobs, because a vote waits for
it; `urgent` does the same for other kinds. A job refused with `LimitExceeded` posts nothing.
"""

from native._native import Completions, Workers
from native.errors import WorkerFailed

__all__ = ["Completions", "WorkerFailed", "Workers"]
