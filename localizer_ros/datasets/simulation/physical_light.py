"""How a camera sees a place in the light of lamps or windows: glare, automatic exposure, and a sensor that counts
photons."""

from __future__ import annotations

from collections.abc import Sequence

from localizer_ros.core.se3 import SE3
from localizer_ros.core.types import Array, Float32, UInt8
from localizer_ros.datasets.simulation.glare import Glare
from localizer_ros.datasets.simulation.lighting import Lighting
from localizer_ros.datasets.simulation.optics import automatic_gain
from localizer_ros.datasets.simulation.place import Place, Quad
from localizer_ros.datasets.simulation.render import Renderer

EXPOSURE_LAG_S = 0.2
"""Automatic exposure sets the gain by what was seen so long ago."""
_METER_PX = 40


class PhysicalLight:
    """The light of one drive, for one camera.

    Args:
        renderer: of the lit quads.
        place: whose furniture hides lamps.
        still: quads that do not move, lit.
        lighting: what they are lit by, from :func:`illuminated`.
        light: level, 1 = day.
        step_stops: of automatic exposure.
    """

    def __init__(
        self,
        renderer: Renderer,
        place: Place,
        still: Sequence[Quad],
        lighting: Lighting,
        light: float,
        step_stops: float,
    ) -> None:
        camera = renderer.camera
        small = camera.scaled(_METER_PX, max(1, round(_METER_PX * camera.height_px / camera.width_px)))
        self._glare = Glare(camera, lighting, still, place.boxes)
        self._meter = renderer.of_camera(small)
        self._meter_glare = Glare(small, lighting, still, place.boxes)
        self._light, self._step_stops = light, step_stops

    def added(self, image: UInt8, inv_z: Float32, T_map_cam: SE3) -> UInt8:
        """(H, W, 3) uint8: what was rendered with lamps, veil and reflections."""
        return self._glare(image, inv_z, T_map_cam)

    def gain(self, T_map_cam: SE3, moved: dict[int, Array]) -> float:
        """Gain that automatic exposure chooses by the view of a camera; see :meth:`Renderer.render`."""
        image, inv_z = self._meter.render(T_map_cam, moved)
        metered = self._meter_glare(image, inv_z, T_map_cam)
        return automatic_gain(metered, self._light, self._step_stops)
