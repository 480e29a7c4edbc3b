from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import load_config
from node.config.explain import explain, settings, to_toml
from node.config.load import ConfigInvalid, environment_name, schema_keys
from node.config.locate import line_index, line_of
from node.config.schema import NodeConfig, split_address

PEER = "ab" * 32


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(path, **options)  # type: ignore[arg-type]
    return str(caught.value).replace(str(path), "node.toml")


def test_all_problems_are_shown_at_once_with_line_and_nearest_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[node]\nname = "n0"\n\n[consensus]\n# patience\nview_timout_ms = 100\n'
        'idle_block_interval_ms = 3\n\n[transport]\nlisten = "0.0.0.0:99999"\n\n[htp]\nx = 1\n',
    )
    assert (
        refusal(path)
        == """node.toml: 4 problems

  line 6  consensus.view_timout_ms
          unknown key. Did you mean consensus.view_timeout_ms?

  line 7  consensus.idle_block_interval_ms = 3
          must be at least 500

  line 10  transport.listen = "0.0.0.0:99999"
           0.0.0.0 is IPv4 and HyperMesh is IPv6 only. Write the IPv6 address of this machine, \
for example "[::1]:9292", or [::] for all of them

  line 12  htp
           unknown key. Did you mean http?"""
    )


def test_the_known_tables_are_named_once(tmp_path: Path) -> None:
    [known] = [
        line.partition("Known here: ")[2]
        for line in refusal(write(tmp_path, "[zzzzzz]\nx = 1\n")).splitlines()
        if "Known here" in line
    ]
    assert sorted(known.split(", ")) == sorted(NodeConfig.model_fields)


def test_a_single_problem_is_one_problem(tmp_path: Path) -> None:
    assert (
        refusal(write(tmp_path, '[log]\nlevel = "loud"\n'))
        == """node.toml: 1 problem

  line 2  log.level = "loud"
          must be one of 'debug', 'info', 'warning' or 'error'"""
    )


def test_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, "[node]\nname = \n"))
    assert "line 2  not TOML" in text


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    assert "hypermesh node init" in refusal(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not text in UTF-8" in refusal(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[::1]", "not an address"),
        ("localhost:9292", "not an address"),
        ("::1:9292", "not an address"),
        ("127.0.0.1:9292", "IPv4"),
        ("[::ffff:1.2.3.4]:1", "IPv4"),
        ("[zz]:9292", "not an IPv6 address"),
        ("[::1]:0", "port must be 1 to 65535"),
        ("[::1]:65536", "port must be 1 to 65535"),
        ("[::1]:\uff19", "port must be 1 to 65535"),
        ("", "not an address"),
    ],
)
def test_an_address_that_cannot_be_bound_is_refused_with_an_example(
    value: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=r"[Ee]xample") as caught:
        split_address(value)
    assert reason in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert 1 <= port <= 65_535
    assert ":" in host


def test_later_sources_win_and_origins_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, '[log]\nlevel = "error"\nformat = "json"\n[node]\nname = "a"\n')
    loaded = load_config(
        path,
        environment={"HYPERMESH_LOG_LEVEL": "debug", "HYPERMESH_NODE": "http://x", "PATH": "y"},
        flags=["node.name=b"],
    )
    assert loaded.config.log.level == "debug"
    assert loaded.config.node.name == "b"
    assert loaded.origin("log.level") == "$HYPERMESH_LOG_LEVEL"
    assert loaded.origin("log.format") == f"{path}:3"
    assert loaded.origin("node.name") == "--set node.name"
    assert loaded.origin("http.listen") == "default"


def test_an_unknown_variable_and_a_bad_flag_are_problems(tmp_path: Path) -> None:
    text = refusal(
        write(tmp_path, ""),
        environment={"HYPERMESH_LOG_LEVL": "debug"},
        flags=["nonsense", "http.enabled=perhaps", "peers.x"],
    )
    assert "unknown variable. Did you mean HYPERMESH_LOG_LEVEL?" in text
    assert "write KEY=VALUE" in text
    assert "must be true or false" in text


def test_what_no_single_key_can_know_is_checked(tmp_path: Path) -> None:
    text = refusal(
        write(
            tmp_path,
            f'[peers]\n"{PEER}" = "[::1]:1"\n"{"cd" * 32}" = "[::1]:1"\n',
        )
    )
    assert "[::1]:1 is already the address of peer" in text


def test_peers_are_addresses_by_node_id(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, f'[peers]\n"{PEER}" = "[2001:db8::1]:9292"\n'))
    assert loaded.config.peers == {PEER: "[2001:db8::1]:9292"}
    assert "a node id is 64" in refusal(write(tmp_path, '[peers]\nabc = "[::1]:9292"\n'))


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    first = load_config(write(tmp_path, f'[http]\nhosts = ["a"]\n[peers]\n"{PEER}" = "[::1]:1"\n'))
    again = load_config(write(tmp_path, to_toml(first, origins=True)))
    assert again.config == first.config


def test_every_key_has_a_description_a_variable_and_an_explanation() -> None:
    rows = settings(load_config(None))
    assert {row.key for row in rows} | {"peers"} == set(schema_keys())
    assert all(row.description for row in rows)
    assert len({environment_name(key) for key in schema_keys()}) == len(schema_keys())
    assert "default: 1000" in explain("consensus.view_timeout_ms")


def test_lines_are_found_behind_values_that_span_lines() -> None:
    text = (
        'a = """\nb = 1\n"""\nlist = [\n  "x = 1", # [\n  { c = 2 },\n]\n'
        "[t.\"quoted key\"]\nd.e = 1\n[[many]]\nf = '#['\ng = 2\n"
    )
    index = line_index(text)
    assert index[("list",)] == 4
    assert index[("t", "quoted key")] == 8
    assert index[("t", "quoted key", "d", "e")] == 9
    assert index[("many", "g")] == 12
    assert ("b",) not in index
    assert line_of(index, ("list", "0", "c")) == 4
    assert line_of(index, ("nowhere",)) is None


names = st.text(string.ascii_lowercase, min_size=1, max_size=6)


@given(st.dictionaries(names, st.dictionaries(names, st.integers(0, 9), max_size=4), max_size=4))
def test_the_index_finds_every_key_of_a_simple_file(tables: dict[str, dict[str, int]]) -> None:
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for table, values in tables.items():
        lines.append(f"[{table}]")
        expected[(table,)] = len(lines)
        for key, value in values.items():
            lines.append(f"{key} = {value}")
            expected[(table, key)] = len(lines)
    assert line_index("\n".join(lines)) == expected


def test_the_default_configuration_is_valid() -> None:
    assert load_config(None).config == NodeConfig()


@pytest.mark.parametrize("written", ["1200", "8952", '"link"'])
def test_the_path_mtu_is_a_number_or_that_of_the_link(tmp_path: Path, written: str) -> None:
    path = write(tmp_path, f"[transport]\npath_mtu_bytes_max = {written}\n")
    plain = written.strip('"')
    variable = {"HYPERMESH_TRANSPORT_PATH_MTU_BYTES_MAX": plain}
    for environment in ({}, variable):
        found = load_config(path, environment=environment).config.transport.path_mtu_bytes_max
        assert found == (plain if plain == "link" else int(plain))


@pytest.mark.parametrize("wrong", ["1199", "65001", "true", "1.5", '"lnk"', '"99999999"', "[]"])
def test_a_wrong_path_mtu_is_one_problem(tmp_path: Path, wrong: str) -> None:
    path = write(tmp_path, f"[transport]\npath_mtu_bytes_max = {wrong}\n")
    text = refusal(path)
    assert text.startswith("node.toml: 1 problem")
    assert 'must be from 1,200 to 65,000, or "link"' in text
