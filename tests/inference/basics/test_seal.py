import json

import pytest

from inference.basics.seal import seal, unseal

DOCUMENT = {"start": 3, "name": "größe\n\ud800", "list": [1, None, {"a": 0.5}]}


def test_a_sealed_document_is_one_line_of_json_and_is_read_back() -> None:
    line = seal(DOCUMENT)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    found = json.loads(line)
    assert len(found.pop("seal")) == 16 and found == DOCUMENT == unseal(line)


def test_a_change_of_any_bit_is_noticed() -> None:
    line = seal(DOCUMENT)
    for place in range(len(line)):
        for bit in range(8):
            changed = bytearray(line)
            changed[place] ^= 1 << bit
            assert unseal(bytes(changed)) is None


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b'{"start": 3}\n', seal(DOCUMENT)[:-1], seal(DOCUMENT) * 2])
def test_other_lines_are_no_documents(line: bytes) -> None:
    assert unseal(line) is None
