"""The one YAML file: what is taken, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.errors import InputError
from sut.mlperf import official
from sut.studies.submission.about import read_about
from sut.studies.submission.systems import missing_fields
from tests.children import CHECKOUT
from tests.unit.studies.submission.finished_runs import finished

GOOD = "submitter: Org\ndivision: open\nsystem: box\n"
NETWORK = GOOD.replace("open", "network")


def written(folder: Path, text: str) -> Path:
    path = folder / "about.yaml"
    path.write_text(text)
    return path


def test_the_template_loads_and_leaves_no_field_untold(tmp_path: Path) -> None:
    told = read_about(CHECKOUT / "docs" / "examples" / "submission.yaml")

    assert missing_fields(finished(tmp_path), told) == []


def test_the_network_division_has_a_type_of_its_own_and_fields_that_no_program_knows(tmp_path: Path) -> None:
    told = read_about(written(tmp_path, f"{NETWORK}fields: {{nic_sut: a card}}\n"))

    assert (told.system_type, told.is_closed) == ("datacenter", True)
    missing = missing_fields(finished(tmp_path), told)
    assert {*official.SYSTEM_NETWORK_FIELDS} - {*missing} == {"nic_sut"}
    # LoadGen's machine is known, and the server is another.
    assert {"host_processor_model_name", "framework", "accelerators_per_node"} < {*missing}


@pytest.mark.parametrize("field", ["submitter", "system", "model"])
@pytest.mark.parametrize("name", ["a/b", "a b", "../a", ".a", "-a", "", "a\\nb", "Köln", "a" * 101])
def test_a_name_that_is_no_folders_is_refused(field: str, name: str, tmp_path: Path) -> None:
    lines = {"submitter": "Org", "division": "open", "system": "box", field: f'"{name}"'}
    path = written(tmp_path, "".join(f"{key}: {value}\n" for key, value in lines.items()))

    with pytest.raises(InputError, match=f"^{path}: {field}: expected a name of letters, digits"):
        read_about(path)


@pytest.mark.parametrize("name", ["A", "my_box-2.1", "9"])
def test_a_name_that_is_a_folders_is_taken(name: str, tmp_path: Path) -> None:
    assert read_about(written(tmp_path, f'{GOOD}model: "{name}"\n')).model == name


def test_a_name_of_digits_needs_no_quotes(tmp_path: Path) -> None:
    assert read_about(written(tmp_path, f"{GOOD}model: 12\n")).model == "12"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "submitter: it is missing; division: it is missing; system: it is missing"),
        ("submitter: Org\nsubmitter: Org\n", "the key 'submitter' stands twice"),
        ("- Org\n", "got list"),
        (GOOD.replace("open", "half"), "division: Input should be 'closed', 'open' or 'network', got 'half'"),
        (f"{NETWORK}system_type: edge\n", "system_type: division network has datacenter, got 'edge'"),
        (f"{GOOD}system_type: datacenter\n", "division open has edge or datacenter,edge, got 'datacenter'"),
        (f"{GOOD}fields: {{nic_sut: a card}}\n", "fields.nic_sut: that is of division network; leave it out"),
        (f"{NETWORK}fields: {{is_network: 'true'}}\n", "unknown field 'is_network'"),
        (f"{NETWORK}fields: {{nic_stu: a card}}\n", "unknown field 'nic_stu'; did you mean nic_sut?"),
        (f"{NETWORK}inferred: {{Offline: SingleStream}}\n", "on the edge only"),
        (f"{NETWORK}model: my\n", "in the network division it is the result's own"),
        (f"{GOOD}systen: a\n", "systen: no such field; did you mean system?"),
        (f"{GOOD}scenarios: [Offline, Offline]\n", "scenarios: expected each scenario once"),
        (f"{GOOD}scenarios: [offline]\n", "got 'offline'"),
        (f"{GOOD}inferred: {{SingleStream: Offline}}\n", "SingleStream can be inferred from nothing"),
        (f"{GOOD}inferred: {{Server: Offline}}\n", "Server can be inferred from nothing"),
        (f"{GOOD}inferred: {{MultiStream: Offline}}\n", "MultiStream can be inferred only from SingleStream"),
        (f"{GOOD}inferred: {{Offline: MultiStream, MultiStream: SingleStream}}\n", "which is inferred itself"),
        (f"{GOOD}inferred: {{Offline: SingleStream}}\nsystem_type: datacenter,edge\n", "on the edge only"),
        (f"{GOOD}inferred: {{Offline: SingleStream}}\nscenarios: [Offline]\n", "SingleStream is not among scenarios"),
        (f"{GOOD.replace('open', 'closed')}model: my\n", "in the closed division it is the result's own"),
        (f"{GOOD}fields: {{status: rdi}}\n", "status is told beside 'fields'"),
        (f"{GOOD}fields: {{cooling_: air}}\n", "unknown field 'cooling_'; did you mean cooling?"),
        (f"{GOOD}fields: {{cooling: [air]}}\n", "fields.cooling: Input should be a valid string"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_with_file_and_field(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)

    with pytest.raises(InputError) as refused:
        read_about(path)

    assert str(refused.value).startswith(f"{path}: ") and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"about\.yaml: no such file; .*docs/examples/submission\.yaml"):
        read_about(tmp_path / "about.yaml")


def test_numbers_are_told_by_their_digits(tmp_path: Path) -> None:
    told = read_about(written(tmp_path, f"{GOOD}fields: {{number_of_nodes: 1, host_storage_capacity: 0.5}}\n"))

    assert told.fields == {"number_of_nodes": "1", "host_storage_capacity": "0.5"}
