"""The heap that the interpreter, SQLite and the extension share: for the daemon only.

`give_back` returns free pages to the system.
"""

from native._native import give_back

__all__ = ["give_back"]
