"""The heap that the interpreter, SQLite and the extension share: for the daemon only.

`share_heap` is for the start, before any thread; `give_back` returns free pages to the system.
"""

from native._native import give_back, share_heap

__all__ = ["give_back", "share_heap"]
