"""Stackers in the kernel: ONNX Runtime sessions on the members' scores of an image."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.basics.errors import SessionError
from inference.ensemble.blend import fill_members
from inference.ensemble.pairs import compute_features, find_pairs, name_features, share_scores
from inference.manifest.labels import Labels
from inference.manifest.model import list_members
from inference.manifest.records import BLEND, Manifest, Stacker, remove_stackers
from inference.models.faults import shorten
from inference.models.graphs import check_graph
from inference.models.sessions import open_on_cpu


class Inputs(NamedTuple):
    """Input of a stacker for some images."""

    members: NDArray[np.float32]
    """(images, members, labels), in the order of the stacker's members; NaN for a missing score."""
    blended: NDArray[np.float32]
    """The scores of the stacker's blend, (images, labels)."""
    traits: NDArray[np.float32]
    """(images, 4), see inference/images/traits.py."""
    features: NDArray[np.float32] | None = None
    """The outputs of the stacker's `features`, (images, sum of outputs), without NaN; None: it reads none."""


class StackerSession:
    """One stacker on the CPU, which is fast enough for its size."""

    def __init__(self, stacker: Stacker, path: Path, labels: Labels, extra: Sequence[tuple[str, int]] = ()) -> None:
        """Load `path`; `extra`: the members `stacker.features` and their numbers of outputs.

        Raises SessionError: the file does not load, or does not fit the manifest.
        """
        self.stacker = stacker
        self._columns = np.array(labels.columns(stacker.group))
        self._file = path.name
        try:
            check_graph(path)
            self._session = open_on_cpu(path)
        except Exception as error:  # ONNX Runtime raises a dozen types without a common base class
            raise SessionError(f"stacker {stacker.name}: {path.name} does not load: {shorten(error)}") from error
        self._options = onnxruntime.RunOptions()
        found = [(node.name, node.type, node.shape[1:]) for node in self._session.get_inputs()]
        if stacker.kind == "cnn":
            wanted = ("scores", "tensor(float)", [len(stacker.members), len(self._columns)])
        else:
            names = name_features(stacker.members, extra)
            wanted = ("features", "tensor(float)", [len(names)])
            notes = self._session.get_modelmeta().custom_metadata_map
            self._counts = np.array(self._read_note(notes, "counts", len(labels.ids)), np.int64)
            if self._read_note(notes, "features", len(names)) != list(names):
                raise SessionError(
                    f"stacker {stacker.name}: {path.name} was fitted to features that differ from this kernel's; "
                    "run `build_kernel.py ensemble` again"
                )
            # The groups of a teammate's labels.csv may stand in another order than those of this one.
            own = self._read_note(notes, "groups", len(labels.ids)) if "groups" in notes else labels.owners
            self._groups = np.array(own, np.int64)
            self._exclusive = notes.get("exclusive") == "true"  # one label per image
        if found != [wanted]:
            raise SessionError(f"stacker {stacker.name}: {path.name}: found inputs {found}; wanted {[wanted]}")

    def score(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return probabilities, (images, labels of the stacker's group).

        Raises SessionError: the stacker fails, or its output is not a probability.
        """
        if self.stacker.kind == "cnn":
            own = fill_members(inputs.members[:, :, self._columns])
            return self._run("scores", own, (len(own), len(self._columns)))
        filled = fill_members(inputs.members)
        rows, columns = find_pairs(filled, self.stacker.top, self._counts)
        extra = np.empty((len(filled), 0), np.float32) if inputs.features is None else inputs.features
        features = compute_features(filled, rows, columns, self._counts, self._groups, inputs.traits, extra)
        scored = inputs.blended.copy()
        scored[rows, columns] = self._run("features", features, (len(rows),))
        return (share_scores(scored) if self._exclusive else scored)[:, self._columns]

    def stop(self) -> None:
        """Interrupt `score`, from another thread, and refuse later calls: it raises SessionError."""
        self._options.terminate = True

    def _run(self, name: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        try:
            (probabilities,) = self._session.run(None, {name: array}, self._options)
        except Exception as error:
            raise SessionError(f"stacker {self.stacker.name} fails on {array.shape}: {shorten(error)}") from error
        if probabilities.shape != shape:
            raise SessionError(f"stacker {self.stacker.name}: found an output of {probabilities.shape}; wanted {shape}")
        # The sum over trees may exceed 1 slightly.
        if not (np.isfinite(probabilities).all() and probabilities.min() > -1e-3 and probabilities.max() < 1.001):
            raise SessionError(f"stacker {self.stacker.name}: its output is not a probability: NaN or outside [0, 1]")
        clipped: NDArray[np.float32] = np.clip(probabilities, np.float32(0), np.float32(1))
        return clipped

    def _read_note(self, notes: dict[str, str], key: str, length: int) -> list[Any]:
        try:
            note = json.loads(notes[key])
        except (KeyError, ValueError):
            note = None
        if not isinstance(note, list) or len(note) != length:
            raise SessionError(
                f"stacker {self.stacker.name}: {self._file}: metadata `{key}` is not a list of {length} values; "
                "run `build_kernel.py ensemble` again"
            )
        return note


@dataclass(frozen=True)
class Stage:
    """The second stage of a manifest, with its stackers loaded."""

    manifest: Manifest
    labels: Labels
    stackers: tuple[StackerSession, ...]

    def drop_stackers(self) -> "Stage":
        """Return the stage in which the blend alone decides."""
        has_stackers = bool(list_used_stackers(self.manifest))
        return Stage(remove_stackers(self.manifest) if has_stackers else self.manifest, self.labels, ())


def list_used_stackers(manifest: Manifest) -> list[Stacker]:
    """Return the stackers that have a weight in the mix of a group."""
    used = {name for weights in manifest.ensemble.mix.values() for name, weight in weights.items() if weight > 0}
    return [stacker for stacker in manifest.ensemble.stackers if stacker.name in used]


def list_used_blends(manifest: Manifest) -> dict[str, set[str]]:
    """Return the blends that the mix of a group or a used stacker of trees reads: name -> groups that are read."""
    stackers = {one.name: one for one in list_used_stackers(manifest)}
    used: dict[str, set[str]] = {}
    for group in manifest.labels.groups:
        for name, weight in manifest.ensemble.mix.get(group, {BLEND: 1.0}).items():
            if weight > 0 and not (name in stackers and stackers[name].kind == "cnn"):
                used.setdefault(stackers[name].blend if name in stackers else name, set()).add(group)
    return used


def open_stage(manifest: Manifest, labels: Labels, folder: Path) -> Stage:
    """Load the second stage of a bundle. Raises SessionError: a stacker does not load."""
    members, sessions = list_members(manifest.models), []
    for one in list_used_stackers(manifest):
        extra = [(name, members[name][0].outputs) for name in one.features]
        sessions.append(StackerSession(one, folder / one.onnx.file, labels, extra))
    return Stage(manifest, labels, tuple(sessions))
