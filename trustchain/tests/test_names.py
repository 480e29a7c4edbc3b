"""Names of certificates and patterns of enrolment keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustchain import limits
from trustchain.core.names import grants, parse_name, parse_names, parse_pattern
from trustchain.errors import MalformedName


@pytest.mark.parametrize("name", ["alice.mesh", "a", "xn--bcher-kva.example", "1.2.mesh", "a-b.c"])
def test_a_lower_case_dns_name_is_taken(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Alice.mesh",
        "alice.mesh.",
        ".mesh",
        "a..b",
        "-a.mesh",
        "a-.mesh",
        "*.mesh",
        "a b",
        "a\n",
        "ünder.mesh",
        "10.0.0.1",
        "::1",
        "a" * 64 + ".mesh",
        ".".join(["a" * 60] * 5),
        "٣.mesh",
    ],
)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(MalformedName):
        parse_name(name)


def test_names_are_sorted_and_each_is_kept_once() -> None:
    assert parse_names(("b.mesh", "a.mesh", "b.mesh")) == ("a.mesh", "b.mesh")


@pytest.mark.parametrize("count", [0, limits.NAMES_COUNT_MAX + 1])
def test_no_name_and_too_many_names_are_refused(count: int) -> None:
    with pytest.raises(MalformedName):
        parse_names(tuple(f"n{place}.mesh" for place in range(count)))


@pytest.mark.parametrize(
    ("pattern", "name", "granted"),
    [
        ("*", "alice.mesh", True),
        ("alice.mesh", "alice.mesh", True),
        ("alice.mesh", "bob.mesh", False),
        ("alice.mesh", "x.alice.mesh", False),
        ("*.mesh", "alice.mesh", True),
        ("*.mesh", "a.b.mesh", True),
        ("*.mesh", "mesh", False),
        ("*.mesh", "evilmesh", False),
        ("*.mesh", "mesh.evil", False),
    ],
)
def test_a_pattern_grants_what_it_says(pattern: str, name: str, granted: bool) -> None:
    assert grants(parse_pattern(pattern), name) is granted


@pytest.mark.parametrize("pattern", ["", "**", "a.*.mesh", "*mesh", "*.*.mesh", "*."])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(MalformedName):
        parse_pattern(pattern)


@given(st.from_regex(r"\A[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){1,3}\Z"))
def test_a_subtree_pattern_grants_names_below_and_never_itself(name: str) -> None:
    assert grants(f"*.{name}", f"x.{name}")
    assert not grants(f"*.{name}", name)
    assert not grants(f"*.{name}", f"x{name}")
