"""A reader of the libraries that a shared object needs (ELF header, System V ABI, 64 bits, little-endian)."""

import mmap
import struct
from pathlib import Path

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5


def list_needed(path: Path) -> list[str]:
    """Return the DT_NEEDED entries of a library, in file order."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert data[:6] == b"\x7fELF\x02\x01", f"{path} is not a 64-bit little-endian ELF file"
        (offset,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        segments = [struct.unpack_from("<IIQQQQ", data, offset + size * index) for index in range(count)]
        start, length = next((place, size) for kind, _, place, _, _, size in segments if kind == PT_DYNAMIC)
        entries = [struct.unpack_from("<qQ", data, place) for place in range(start, start + length, 16)]
        entries = entries[: entries.index((DT_NULL, 0))]
        address = next(value for tag, value in entries if tag == DT_STRTAB)
        # The entry gives the address of the string table in memory; its segment gives the offset in the file.
        strings = next(
            address - memory + place
            for kind, _, place, memory, _, size in segments
            if kind == PT_LOAD and memory <= address < memory + size
        )
        names = []
        for tag, value in entries:
            if tag == DT_NEEDED:
                begin = strings + value
                names.append(data[begin : data.find(b"\0", begin)].decode())
        return names
