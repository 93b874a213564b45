"""Hypothesis strategies that damage valid files and manifests."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Extreme numbers, in the widths and byte orders of file formats.
ODD_BYTES = [b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0"]


@st.composite
def mutate(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Return a seed after one to four edits (replace, insert, delete or repeat bytes), sometimes truncated."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        place = int(draw(st.floats(0, 1)) * len(content))
        end = min(len(content), place + draw(st.integers(1, 16)))
        edit = draw(st.sampled_from(["replace", "replace", "insert", "delete", "repeat"]))
        piece = draw(st.sampled_from(ODD_BYTES) | st.binary(min_size=1, max_size=4))
        if edit == "replace":
            content[place : place + len(piece)] = piece
        elif edit == "insert":
            content[place:place] = piece
        elif edit == "delete":
            del content[place:end]
        else:
            content[place:place] = content[place:end] * draw(st.integers(1, 20))
    if draw(st.integers(0, 7)) == 7:
        del content[int(draw(st.floats(0, 1)) * len(content)) :]
    return bytes(content) if draw(st.integers(0, 3)) == 3 else repair_png(bytes(content))


def repair_png(content: bytes) -> bytes:
    """Correct the checksums of a PNG, so that readers accept them; return other content unchanged."""
    if not content.startswith(PNG_SIGNATURE):
        return content
    repaired, place = bytearray(PNG_SIGNATURE), len(PNG_SIGNATURE)
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4])
        body = content[place + 4 : place + 8 + size]
        if len(body) < 4 + size:
            break
        repaired += struct.pack(">I", size) + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + size
    return bytes(repaired + content[place:])


def any_json() -> st.SearchStrategy[Any]:
    """Return any JSON value, including numbers too large for a float and text that is no valid Unicode."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([10**400, -1, 2**63, 1e308, 5e-324])
        | st.floats()
        | st.text(max_size=8)
        | st.sampled_from(["\ud800", "\0", "a\nb", "..", "/etc/passwd", "a/../b", "C:\\x", "."])
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )


@st.composite
def mutate_json(draw: st.DrawFn, document: Any) -> Any:
    """Return the document with one value replaced, removed, or copied to another key."""
    if isinstance(document, dict) and document and draw(st.integers(0, 7)):
        name = draw(st.sampled_from(sorted(document)))
        edit = draw(st.integers(0, 9))
        if edit == 0:
            return {key: value for key, value in document.items() if key != name}
        if edit == 1:
            return document | {draw(st.text(max_size=8)): document[name]}
        return document | {name: draw(mutate_json(document[name]))}
    if isinstance(document, list) and document and draw(st.integers(0, 7)):
        place = draw(st.integers(0, len(document) - 1))
        return [*document[:place], draw(mutate_json(document[place])), *document[place + 1 :]]
    return draw(any_json())
