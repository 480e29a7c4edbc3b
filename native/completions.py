"""The queue that results of other threads come back through.

`Completions` is one descriptor for the event loop: when it is readable, `drain()` returns
`[(token, value), ...]` in the order posted.
"""

from native._native import Completions

__all__ = ["Completions"]
