"""OpenVINO, imported such that it reports nothing.

Its package sends an event to a server each time it is imported, by a thread that the end of the process waits for, and
writes an identity into the user's home. A robot tells nobody that it starts; without the reporter OpenVINO does not.
"""

from __future__ import annotations

import sys

from localizer_ros.core.types import BackendError

# None says that there is no such package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so it is defined, not so it is typed

try:
    import openvino
except ImportError as error:  # pragma: no cover - depends on the machine
    raise BackendError(f"openvino: cannot be imported ({error}); set backend.kind to torch") from error

__all__ = ["openvino"]
