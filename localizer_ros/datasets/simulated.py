"""A simulated world as a recording: rendered on read, exact ground truth, odometry that drifts.

A world is one ``WorldConfig``, on disk a ``world.yaml``. The same settings give the same bytes on every run.
Drives of one seed and place are in one map: ``drive`` chooses the path, ``light`` the time of day,
``offset_m`` and ``offset_deg`` shift a path sideways and turn the view to measure how far off a mapped path
one can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from msgspec import Meta

from localizer_ros.core.config.schema import Config, dump_yaml, load_config
from localizer_ros.core.files import read_text
from localizer_ros.core.se3 import SE3
from localizer_ros.core.trajectory import Trajectory
from localizer_ros.core.types import Array, Camera, ConfigError, Float32, Frame, SourceError, UInt8
from localizer_ros.datasets.simulation.drive import Course, Drive, camera_on_robot
from localizer_ros.datasets.simulation.lighting import illuminated, lighting_of
from localizer_ros.datasets.simulation.movers import moving_boxes, people
from localizer_ros.datasets.simulation.optics import Flicker, PhotonSensor, Sensor, motion_blur
from localizer_ros.datasets.simulation.physical_light import EXPOSURE_LAG_S, PhysicalLight
from localizer_ros.datasets.simulation.place import Place, lit, make_place, paint, painted, rearranged
from localizer_ros.datasets.simulation.render import Renderer
from localizer_ros.datasets.source import FrameRecord, Stamps, split_error

LIGHT = {"day": 1.0, "dim": 0.5, "night": 0.15}
_EPOCH_NS = 1_700_000_000_000_000_000
_DRIVE_NS = 10_000_000_000_000
_ROBOT_RADIUS_M = 0.25
# Three hours at 15 frames a second; a pose is worked out for each before the first is rendered.
_MOST_FRAMES = 200_000


class WorldConfig(Config, frozen=True):
    """One drive through a simulated place."""

    seed: Annotated[
        int, Meta(ge=0, le=2**31, description="Seed of the place: another one is another place of its kind")
    ] = 0
    place: Annotated[
        Literal["room", "corridor", "hall"],
        Meta(
            description="Kind of place: furnished room 11x9 m, corridor around a block 16x11 m, or hall 24x16 m"
        ),
    ] = "room"
    drive: Annotated[
        int,
        Meta(ge=0, le=10_000, description="Number of the drive: which path, and what moves there meanwhile"),
    ] = 0
    duration_s: Annotated[float, Meta(gt=0.0, le=36_000.0, description="Duration of the drive")] = 60.0
    fps: Annotated[float, Meta(gt=0.0, le=240.0, description="Frames a second")] = 15.0
    width_px: Annotated[int, Meta(ge=64, le=4096, description="Width of the images")] = 640
    height_px: Annotated[int, Meta(ge=64, le=4096, description="Height of the images")] = 480
    fov_deg: Annotated[float, Meta(ge=20.0, le=140.0, description="Horizontal field of view")] = 75.0
    camera_height_m: Annotated[
        float, Meta(ge=0.05, le=2.0, description="Height of the camera above the floor")
    ] = 0.6
    camera_pitch_deg: Annotated[
        float, Meta(ge=-60.0, le=60.0, description="Angle by which the camera looks up")
    ] = 3.0
    speed_m_s: Annotated[float, Meta(gt=0.0, le=5.0, description="Speed on straight stretches")] = 0.6
    reverse: Annotated[bool, Meta(description="The drive goes the other way around")] = False
    offset_m: Annotated[
        float, Meta(ge=-5.0, le=5.0, description="Lateral distance from the path, left positive")
    ] = 0.0
    offset_deg: Annotated[
        float, Meta(ge=-180.0, le=180.0, description="Heading relative to the path, left positive")
    ] = 0.0
    light: Annotated[
        Literal["day", "dim", "night"] | float,
        Meta(
            description="Time of day, or a level: 1 = day, 0.15 = night, less = underexposed, above 1 = overexposed"
        ),
    ] = "day"
    lighting: Annotated[
        Literal["painted", "windows", "lamps"],
        Meta(
            description="How light falls: painted = soft, a tone curve makes the night; windows or lamps = as it is in "
            "nature, with cast shadows, reflections, veil, automatic exposure and photon noise"
        ),
    ] = "painted"
    lamp_layout: Annotated[
        int,
        Meta(
            ge=0, le=1000, description="Where lamps are: 0 = on the ceiling, others = somewhere on the walls"
        ),
    ] = 0
    flicker_hz: Annotated[
        float,
        Meta(ge=0.0, le=1000.0, description="Flicker of lamps, twice the frequency of the mains; 0 = steady"),
    ] = 0.0
    exposure_step_stops: Annotated[
        float,
        Meta(ge=0.0, le=4.0, description="Steps of automatic exposure, factors of two; 0 = smooth"),
    ] = 0.0
    exposure_ms: Annotated[
        float, Meta(ge=0.0, le=100.0, description="Exposure time, which blurs by motion; 0 = no blur")
    ] = 8.0
    noise: Annotated[float, Meta(ge=0.0, le=50.0, description="Image noise, sigma in grey levels of 255")] = (
        2.0
    )
    moving_objects: Annotated[
        int, Meta(ge=0, le=20, description="Number of boxes that move about and occlude")
    ] = 2
    people: Annotated[int, Meta(ge=0, le=20, description="Number of people who walk past the robot")] = 0
    moved_furniture: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of the furniture that stands elsewhere in this drive")
    ] = 0.0
    repetition: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of pictures and doors that look the same everywhere")
    ] = 0.2
    odometry_noise: Annotated[
        float,
        Meta(
            ge=0.0,
            le=20.0,
            description="Error of the odometry: 1 = a good wheeled robot, 1 % of distance and 1.5 % of turns",
        ),
    ] = 1.0
    supersampling: Annotated[
        int, Meta(ge=1, le=3, description="Rendered pixels a side of each pixel: smooth edges, slower")
    ] = 1


class SimulatedSource:
    """A drive through a simulated place; a ``FrameSource``.

    Args:
        config: the world and the drive.
        path: where it was read from, for messages.

    Raises:
        ConfigError: the path leads through a wall or furniture (an offset is too large).
    """

    def __init__(self, config: WorldConfig, path: Path = Path("world.yaml")) -> None:
        self.config = config
        self.path = path
        self.format = "simulated"
        self.ground_truth = "simulation (exact)"
        self.stamps: Stamps = "recorded"
        self.splits: Sequence[str] = ()
        f = 0.5 * config.width_px / np.tan(0.5 * np.deg2rad(config.fov_deg))
        self.camera = Camera.pinhole(
            config.width_px, config.height_px, f, f, 0.5 * (config.width_px - 1), 0.5 * (config.height_px - 1)
        )
        self.T_base_cam: SE3 | None = camera_on_robot(config.camera_height_m, config.camera_pitch_deg)
        self._light = LIGHT[config.light] if isinstance(config.light, str) else float(config.light)
        _check_light(config, self._light, path)
        mapped = make_place(config.place, config.seed)
        self._drive = Drive(np.random.default_rng([config.seed, 103, config.drive]), _course(config, mapped))
        if config.duration_s * config.fps > _MOST_FRAMES:
            raise ConfigError(f"{path}: duration_s x fps: expected at most {_MOST_FRAMES} frames")
        self._times = np.arange(max(1, round(config.duration_s * config.fps))) / config.fps
        robot_xy = self._drive.planar(self._times)[:, :2]
        self.place = mapped
        if config.moved_furniture > 0.0:
            self.place = rearranged(mapped, config.moved_furniture, robot_xy, self._rng(110))
        _check_free(self.place, robot_xy, self._times, path)
        self._start_ns = _EPOCH_NS + config.drive * _DRIVE_NS
        self.records: Sequence[FrameRecord] = [
            FrameRecord(
                name=f"drive-{config.drive}/{index:06d}",
                sequence=f"drive-{config.drive}",
                stamp_ns=self._start_ns + round(index * 1e9 / config.fps),
                T_map_cam=self.T_map_cam(float(time_s)),
            )
            for index, time_s in enumerate(self._times)
        ]
        self.odometry: Trajectory | None = self._drive.odometry(
            self._rng(104), config.duration_s, config.odometry_noise, self._start_ns
        )
        self._movers = [
            *moving_boxes(self._rng(105), config.moving_objects, self.place, robot_xy, self._times),
            *people(self._rng(111), config.people, self.place, robot_xy, self._times),
        ]
        self._quads_of_movers: list[range] = []
        # Painting takes a second; who only asks for poses need not wait for it.
        self._renderer: Renderer | None = None
        self._physical: PhysicalLight | None = None
        self._sensor = _sensor(config, self.camera, self._light, self._rng(106))

    def T_map_cam(self, time_s: float) -> SE3:
        """True pose of the camera at a time of the drive, seconds from its start."""
        assert self.T_base_cam is not None
        return self._drive.T_map_base(time_s) @ self.T_base_cam

    def read(self, index: int) -> Frame:
        """See ``FrameSource.read``; renders."""
        config, record = self.config, self.records[index]
        time_s = float(self._times[index])
        image, inv_z = self.render(index)
        if config.exposure_ms > 0.0:
            half_s = 0.5e-3 * config.exposure_ms
            T_begin_end = self.T_map_cam(time_s - half_s).inverse() @ self.T_map_cam(time_s + half_s)
            image = motion_blur(image, inv_z, self.camera, T_begin_end)
        rng = self._rng(107, index)
        if isinstance(self._sensor, Sensor):
            image = self._sensor(image, time_s, rng)
        else:
            assert self._physical is not None
            earlier_s = time_s - EXPOSURE_LAG_S
            gain = self._physical.gain(self.T_map_cam(earlier_s), self._moved(earlier_s))
            image = self._sensor(image, gain, time_s, rng)
        return Frame(record.stamp_ns, image, self.camera, record.name, self.T_base_cam)

    def render(self, index: int) -> tuple[UInt8, Float32]:
        """The frame before blur, lens and noise: (H, W, 3) uint8 RGB and (H, W) float32 inverse depth,
        1/m.
        """
        if self._renderer is None:
            self._renderer = self._open_renderer()
        T_map_cam = self.records[index].T_map_cam
        assert T_map_cam is not None
        image, inv_z = self._renderer.render(T_map_cam, self._moved(float(self._times[index])))
        if self._physical is not None:
            image = self._physical.added(image, inv_z, T_map_cam)
        if self.config.supersampling > 1:
            size = (self.camera.width_px, self.camera.height_px)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            return image, np.asarray(cv2.resize(inv_z, size, interpolation=cv2.INTER_AREA), np.float32)
        return image, inv_z.copy()

    def split(self, name: str) -> SimulatedSource:
        """See ``FrameSource.split``; one drive has no parts."""
        if name != "all":
            raise split_error(self.path, name, self.splits)
        return self

    def _rng(self, *purpose: int) -> np.random.Generator:
        """A generator for one purpose: everything but the place and the path differs between shifted drives,
        too.
        """
        config = self.config
        shift = [round(1000 * config.offset_m) + 10**6, round(100 * config.offset_deg) + 10**6]
        return np.random.default_rng([config.seed, config.drive, *shift, *purpose])

    def _open_renderer(self) -> Renderer:
        config = self.config
        if config.moved_furniture > 0.0:
            still = paint(self.place, config.seed, config.repetition)
        else:
            still = painted(config.place, config.seed, config.repetition)
        quads = [*still]
        self._quads_of_movers = []
        rng = self._rng(109)
        for mover in self._movers:
            of_mover = mover.quads(rng)
            self._quads_of_movers.append(range(len(quads), len(quads) + len(of_mover)))
            quads += of_mover
        n = config.supersampling
        camera = self.camera.scaled(n * config.width_px, n * config.height_px)
        if config.lighting == "painted":
            return Renderer(camera, lit(self.place, tuple(quads), self._light, self._rng(108)))
        sources = lighting_of(self.place, config.lighting, config.lamp_layout, config.seed)
        quads, sources = illuminated(self.place, quads, sources)
        renderer = Renderer(camera, quads)
        self._physical = PhysicalLight(
            renderer, self.place, quads[: len(still)], sources, self._light, config.exposure_step_stops
        )
        return renderer

    def _moved(self, time_s: float) -> dict[int, Array]:
        """Number of a quad -> (3,) displacement of what moves."""
        return {
            quad: np.array([*mover.displacement(time_s), 0.0])
            for mover, of_mover in zip(self._movers, self._quads_of_movers, strict=True)
            for quad in of_mover
        }


def open_recording(path: Path) -> SimulatedSource:
    """Open a ``world.yaml``, or the folder it lies in. Raises SourceError or ConfigError naming the file, of which
    ``open_source`` makes a SourceError."""
    file = path / "world.yaml" if path.is_dir() else path
    if not file.is_file():
        raise SourceError(f"{path}: expected a file world.yaml with the settings of a simulated world")
    # A file that lost its content would be another place in silence; {} asks for one of defaults.
    if not read_text(file, SourceError).strip():
        raise SourceError(
            f"{file}: is empty; expected settings of a simulated world, or {{}} for their defaults"
        )
    return SimulatedSource(load_config(WorldConfig, file), file)


def write_world(folder: Path, config: WorldConfig) -> Path:
    """Write ``folder/world.yaml``; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "world.yaml"
    file.write_text(dump_yaml(config))
    return file


def _course(config: WorldConfig, place: Place) -> Course:
    return Course(
        place.route_m,
        place.wander_m,
        # The golden ratio: the starts of any number of drives are spread evenly.
        start=(0.381966 * config.drive) % 1.0,
        duration_s=config.duration_s,
        speed_m_s=config.speed_m_s,
        offset_m=config.offset_m,
        offset_rad=float(np.deg2rad(config.offset_deg)),
        reverse=config.reverse,
    )


def _sensor(
    config: WorldConfig, camera: Camera, light: float, rng: np.random.Generator
) -> Sensor | PhotonSensor:
    if config.lighting == "painted":
        return Sensor(camera, light, config.noise, rng)
    lamps = config.lighting == "lamps"
    flicker = Flicker(config.flicker_hz, 1e-3 * config.exposure_ms) if lamps else None
    return PhotonSensor(camera, light, config.noise, flicker, rng)


def _check_light(config: WorldConfig, light: float, path: Path) -> None:
    """Raise ConfigError for a level, or for settings that the kind of light does not have."""
    if not 0.0 <= light <= 5.0:
        raise ConfigError(f"{path}: light: expected 0 to 5, got {light}")
    if config.lighting != "lamps" and (config.flicker_hz > 0.0 or config.lamp_layout > 0):
        raise ConfigError(f"{path}: flicker_hz and lamp_layout: only with lighting: lamps")
    if config.lighting == "painted" and config.exposure_step_stops > 0.0:
        raise ConfigError(f"{path}: exposure_step_stops: only with lighting: lamps or windows")


def _check_free(place: Place, xy: Array, times: Array, path: Path) -> None:
    """Raise ConfigError where the robot would touch something."""
    clearance = (np.asarray(place.size_m[:2]) / 2 - np.abs(xy)).min(axis=1)
    for box in place.boxes:
        clearance = np.minimum(clearance, box.distance_m(xy))
    worst = int(np.argmin(clearance))
    if clearance[worst] < _ROBOT_RADIUS_M:
        raise ConfigError(
            f"{path}: the robot would hit something after {times[worst]:.1f} s; try a smaller offset_m"
        )
