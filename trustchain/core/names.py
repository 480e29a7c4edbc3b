"""DNS names of certificates, and the patterns an enrolment key may grant.

A name is lower-case text of letters, digits and hyphens; anything international arrives already in
its `xn--` form. A pattern is a name (grants just itself), `*.` and a name (grants everything below
it, at any depth, but not the name itself), or `*` (grants every name).
"""

from __future__ import annotations

import re
from typing import Final

from trustchain import limits
from trustchain.errors import MalformedName

EVERY_NAME: Final = "*"

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)


def parse_name(text: str) -> str:
    """Return a well-formed name unchanged.

    Raises MalformedName: wildcards, upper case, a trailing dot and IP addresses are refused.
    """
    if not text or len(text) > limits.NAME_LENGTH_MAX:
        raise MalformedName(f"a name has 1 to {limits.NAME_LENGTH_MAX} characters")
    labels = text.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise MalformedName(f"{text!r} is not a lower-case DNS name")
    if _DIGITS.fullmatch(labels[-1]):
        raise MalformedName(f"{text!r} ends in a number, as an IP address does")
    return text


def parse_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return well-formed names in their canonical order: sorted, each once, at least one."""
    if not 1 <= len(names) <= limits.NAMES_COUNT_MAX:
        raise MalformedName(f"a certificate has 1 to {limits.NAMES_COUNT_MAX} names")
    return tuple(sorted({parse_name(name) for name in names}))


def parse_pattern(text: str) -> str:
    """Return a well-formed pattern unchanged, or raise MalformedName."""
    if text != EVERY_NAME:
        parse_name(text.removeprefix("*."))
    return text


def grants(pattern: str, name: str) -> bool:
    """Say whether a pattern covers a name."""
    if pattern == EVERY_NAME:
        return True
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
    return name == pattern


def printable(text: str) -> bool:
    """Say whether a text is visible ASCII without spaces, as key names and origins are."""
    return all("!" <= character <= "~" for character in text)
