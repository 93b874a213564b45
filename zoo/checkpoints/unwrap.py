"""Finds the weights in what a checkpoint file holds: which table of tensors, and under which prefix of the names."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# Words of the keys and prefixes that training code puts before the weights, the most usual first.
KNOWN = ("state_dict", "model", "model_state_dict", "net", "network", "module", "_orig_mod", "backbone", "timm_model")
KNOWN_AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_model", "model_ema_state_dict", "ema_state_dict")
AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|$)")
DEEPEST = 3
OPTIMIZER = "param_groups"


@dataclass(frozen=True)
class Table:
    """Weights in a checkpoint."""

    key: str
    """Of the table in the file, as in `state_dict`; '' if the file is the table."""
    prefix: str
    """Of the tensors' names, as in `module.`."""
    tensors: Mapping[str, torch.Tensor]
    """All of the table, with their whole names."""
    fits: int
    """Number of the network's tensors that are there by name."""

    @property
    def name(self) -> str:
        """The key and the prefix, for messages."""
        return " in ".join(f"`{part}`" for part in (self.prefix, self.key) if part) or "tensors without a prefix"

    @property
    def is_average(self) -> bool:
        """Whether this is a moving average of the weights, by its name."""
        return bool(AVERAGE.search(f"{self.key}.{self.prefix}"))

    @property
    def rank(self) -> tuple[int, int]:
        """Number of words in the key and the prefix that are not usual, and the place of the first usual word."""
        words = [word for word in f"{self.key}.{self.prefix}".split(".") if word]
        usual = (*KNOWN, *KNOWN_AVERAGES)
        places = [usual.index(word) for word in words if word in usual]
        return len(words) - len(places), min(places, default=-1)


def list_tables(loaded: Any, wanted: Collection[str]) -> list[Table]:
    """List the weights in a loaded file: each table of tensors under each prefix that fits best.

    `wanted`: names of the network's tensors. The first is the one to take, except for the moving average.
    """
    found = []
    for key, tensors in _walk(loaded, "", 0):
        prefixes = _count_prefixes(tensors, wanted)
        most = max(prefixes.values(), default=0)
        found += [Table(key, prefix, tensors, most) for prefix, count in prefixes.items() if count == most]
        if not most:
            found.append(Table(key, "", tensors, 0))
    return sorted(found, key=lambda table: (-table.fits, table.rank))


def choose_table(tables: list[Table], ema: bool) -> tuple[Table, str]:
    """Return the table to take of those of `list_tables`, and a note on the moving average ('' if there is none).

    Raises ValueError if two of them are equally good.
    """
    best = [table for table in tables if table.fits == tables[0].fits]
    kind = [table for table in best if table.is_average == ema] or best
    chosen = kind[0]
    rivals = [table for table in kind[1:] if table.rank == chosen.rank]
    if rivals:
        raise ValueError(f"weights twice, as {chosen.name} and as {rivals[0].name}; save one of them")
    beside = [table for table in tables if table.is_average != chosen.is_average]
    if not beside:
        return chosen, "the moving average" if chosen.is_average else ""
    reason = "" if beside[0].fits == chosen.fits else ", which lacks tensors"
    if chosen.is_average:
        return chosen, f"the moving average, not the plain {beside[0].name}{reason}"
    return chosen, f"not the moving average {beside[0].name}{reason}"


def describe_contents(loaded: Any) -> str:
    """Return what a file without weights holds."""
    if isinstance(loaded, torch.Tensor):
        return "one tensor"
    if isinstance(loaded, (list, tuple)):
        return f"a {type(loaded).__name__} of {len(loaded)}"
    if isinstance(loaded, Mapping):
        if OPTIMIZER in loaded:
            return "the state of an optimizer"
        optimizers = [key for key, value in loaded.items() if isinstance(value, Mapping) and OPTIMIZER in value]
        if optimizers:
            return f"the state of an optimizer under `{optimizers[0]}`"
        return f"a dict of {', '.join(map(str, list(loaded)[:5]))}" if loaded else "an empty dict"
    return type(loaded).__name__


def _walk(loaded: Any, key: str, depth: int) -> Iterator[tuple[str, Mapping[str, torch.Tensor]]]:
    """Yield the tables of tensors in nested dicts, with their keys."""
    if not isinstance(loaded, Mapping) or OPTIMIZER in loaded or not all(isinstance(name, str) for name in loaded):
        return
    tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    # Some layers keep an extra state that is None or a number.
    others = [value for value in loaded.values() if isinstance(value, (Mapping, list, tuple, str))]
    if tensors and not others:
        yield key, tensors
        return
    if depth < DEEPEST:
        for name, value in loaded.items():
            yield from _walk(value, f"{key}.{name}" if key else name, depth + 1)


def _count_prefixes(names: Collection[str], wanted: Collection[str]) -> Counter[str]:
    """Count, for each prefix, the names that are wanted ones after it."""
    known = set(wanted)
    counts: Counter[str] = Counter()
    for name in names:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        counts.update(name[:start] for start in starts if name[start:] in known)
    return counts
