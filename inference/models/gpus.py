"""The GPUs of a run, shared by its models: what one of them learns about a lost device holds for all."""

import ctypes
from collections.abc import Sequence

from inference.basics.errors import DeviceLostError
from inference.basics.run_log import RunLog, join_names


class Gpus:
    """The number of GPUs that the models use; none after the first DeviceLostError."""

    def __init__(self, names: Sequence[str], log: RunLog) -> None:
        """`names`: of the devices that the driver shows; the log gets one note when they are given up."""
        self._names, self._log = names, log
        self.count = len(names)

    def give_up(self, error: DeviceLostError) -> None:
        """Use the CPU for all models from now on; note it once."""
        if self.count:
            self.count = 0
            self._log.note_degraded(f"{join_names(self._names)}: GPU not used, running on the CPU: {error}")

    def keep(self, session: object) -> None:
        """Never destroy a session of a lost device: CUDA fails in its destructor too, which may end the process."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
