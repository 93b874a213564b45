"""Names the network of timm that the tensors of a checkpoint fit, for the message that they do not fit another."""

import difflib
import functools
import re
import time
from collections.abc import Iterator, Mapping

import timm
import torch

from zoo.architectures.named import find_heads, sketch_architecture, strip_hub

SECONDS = 10.0
"""Time after which no further network is tried."""
LEAST, ENOUGH = 0.9, 0.98
"""Share of the tensors that a network must fit to be named, and to end the search."""
MOST_SIMILAR = 12
"""Number of names to try; if none of them fits `RELATED` of the tensors, the family is another one."""
RELATED = 0.02

SIZES = re.compile(r"\d+|atto|femto|pico|nano|tiny|small|base|medium|large|xlarge|huge|(?<=_)x?[sml](?=_|$)")
"""Parts of a name that differ between the sizes of one architecture."""

Shapes = Mapping[str, tuple[int, ...]]


def describe_nearest(state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], name: str) -> str:
    """Return '; its tensors fit ARCHITECTURE (98 %)' for a network similar to `name`, or '' if none fits.

    `wanted`: the tensors of `name`; if the checkpoint fits them better than `LEAST`, nothing is searched.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if _compare(shapes, {key: tuple(tensor.shape) for key, tensor in wanted.items()}, ()) >= LEAST:
        return ""
    best, most, end = "", 0.0, time.monotonic() + SECONDS
    for index, candidate in enumerate(_list_candidates(strip_hub(name).partition(".")[0])):
        share = _compare(shapes, *_read_shapes(candidate))
        if share > most:
            best, most = candidate, share
        if most >= ENOUGH or time.monotonic() > end or (index >= MOST_SIMILAR and most < RELATED):
            break
    return f"; its tensors fit {best} ({100 * most:.0f} %)" if most >= LEAST else ""


def _list_candidates(name: str) -> Iterator[str]:
    """Yield names of timm, the most plausible first: other sizes of `name`, names like it, those of its family."""
    if not timm.is_model(name):
        return
    known = timm.list_models()
    home = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    similar = difflib.get_close_matches(name, known, n=len(known), cutoff=0.5)
    family = difflib.get_close_matches(name, timm.list_models(module=home), n=len(known), cutoff=0.0)
    other_sizes = [one for one in similar if SIZES.sub("", one) == SIZES.sub("", name)]
    yield from (one for one in dict.fromkeys([*other_sizes, *similar[:MOST_SIMILAR], *family]) if one != name)


@functools.lru_cache(maxsize=256)
def _read_shapes(name: str) -> tuple[Shapes, tuple[str, ...]]:
    """Return the shapes of the tensors of a network by name, and the prefixes of its head."""
    try:
        module = sketch_architecture(name, {"num_classes": 1000})
    except Exception:  # lacks a library
        return {}, ()
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}, find_heads(module, 1000)


def _compare(found: Shapes, wanted: Shapes, heads: tuple[str, ...]) -> float:
    """Return the share of tensors, except the head's, that have one name and shape in both."""
    names = [key for key in {**found, **wanted} if not (heads and key.startswith(heads))]
    return sum(found.get(key) == wanted.get(key) for key in names) / max(len(names), 1)
