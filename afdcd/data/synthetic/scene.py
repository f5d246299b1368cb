"""One synthetic street scene: background, street, fences, vehicles, people, poles and signs.

Objects stand nearer the lower they are, nearer ones are larger and hide farther ones. Every class
has its colours, but they overlap widely with other classes': only together with texture, shape and
place do they tell what a pixel is.
"""

from __future__ import annotations

import cv2
import numpy as np

from afdcd.data.labels import IGNORE
from afdcd.data.synthetic import textures
from afdcd.data.synthetic.textures import Rng, Texture

CLASSES = (
    "sky",
    "building",
    "vegetation",
    "road",
    "sidewalk",
    "fence",
    "pole",
    "traffic sign",
    "car",
    "truck",
    "person",
)
COLORS = (
    (70, 130, 180),
    (70, 70, 70),
    (107, 142, 35),
    (128, 64, 128),
    (244, 35, 232),
    (190, 153, 153),
    (153, 153, 153),
    (220, 220, 0),
    (0, 0, 142),
    (0, 60, 100),
    (220, 20, 60),
)
SKY, BUILDING, VEGETATION, ROAD, SIDEWALK, FENCE, POLE, SIGN, CAR, TRUCK, PERSON = range(11)
# Scenes are drawn larger and averaged down, so that edges and thin things get mixed pixels.
OVERSAMPLING = 2


class Scene:
    """A scene while it is being drawn, at `OVERSAMPLING` times its final size."""

    def __init__(self, rng: Rng, height: int, width: int) -> None:
        self.rng = rng
        self.height, self.width = height * OVERSAMPLING, width * OVERSAMPLING
        self.image = np.zeros((self.height, self.width, 3), dtype=np.float32)
        self.labels = np.full((self.height, self.width), SKY, dtype=np.uint8)
        self.horizon = int(self.height * rng.uniform(0.34, 0.5))

    def paint(self, mask: np.ndarray, texture: Texture, label: int | None) -> None:
        """Put a texture where ``mask`` [H, W] is; keep the labels below when label is None."""
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        if width == 0:
            return
        area = slice(top, top + height), slice(left, left + width)
        inside = mask[area]
        self.image[area][inside] = texture(height, width)[inside]
        if label is not None:
            self.labels[area][inside] = label

    def polygon(self, points: list[tuple[float, float]]) -> np.ndarray:
        """Bool [H, W] inside the polygon of (x, y) points."""
        mask = np.zeros((self.height, self.width), dtype=np.uint8)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
        return mask.astype(bool)

    def box(self, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """Bool [H, W] inside an upright box."""
        mask = np.zeros((self.height, self.width), dtype=bool)
        rows = slice(max(round(top), 0), max(round(bottom), 0))
        mask[rows, max(round(left), 0) : max(round(right), 0)] = True
        return mask

    def disc(self, x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
        """Bool [H, W] inside an ellipse."""
        mask = np.zeros((self.height, self.width), dtype=np.uint8)
        axes = (max(round(radius_x), 1), max(round(radius_y), 1))
        cv2.ellipse(mask, (round(x), round(y)), axes, 0, 0, 360, 1, -1)
        return mask.astype(bool)

    def scale_at(self, foot: float) -> float:
        """Height in pixels of a person whose feet are at row ``foot``."""
        return 0.16 * self.height + 0.6 * max(foot - self.horizon, 0.0)


def render_scene(seed: tuple[int, ...], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Args:
        seed: the scene is a function of it and of the size.
        height, width: of the result.

    Returns:
        image uint8 [H, W, 3] in BGR and labels uint8 [H, W], an index of `CLASSES` or 255.
    """
    return draw_scene(Scene(np.random.default_rng(seed), height, width))


def draw_scene(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw into an empty scene; see `render_scene`."""
    rng = scene.rng
    _sky(scene)
    _background(scene)
    _street(scene)
    _fences(scene)
    objects = [_car] * int(rng.integers(1, 4)) + [_truck] * int(rng.integers(0, 2))
    objects += [_person] * int(rng.integers(2, 7)) + [_post] * int(rng.integers(2, 6))
    reach = scene.height * 0.92 - scene.horizon
    feet = [scene.horizon + reach * rng.uniform(0.04, 1.0) ** 1.5 for _ in objects]
    for foot, index in sorted(zip(feet, rng.permutation(len(objects)).tolist(), strict=True)):
        objects[index](scene, foot)
    _bonnet(scene)
    return _finish(scene)


def _sky(scene: Scene) -> None:
    h, w, rng = scene.height, scene.width, scene.rng
    top = textures.color_near(rng, (225, 180, 150), 20)
    bottom = textures.color_near(rng, (235, 220, 210), 20)
    share = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    clouds = textures.smooth_noise(rng, h, w, int(rng.integers(3, 8))) * rng.uniform(4, 18)
    scene.image[:] = top * (1 - share) + bottom * share + clouds[:, :, None]


def _background(scene: Scene) -> None:
    """Buildings and trees in one row behind the street, some standing before others."""
    rng, h, w = scene.rng, scene.height, scene.width
    left = -rng.uniform(0, 0.1) * w
    while left < w:
        width = rng.uniform(0.1, 0.35) * w
        if rng.random() < 0.8:
            top = scene.horizon * rng.uniform(0.05, 0.85)
            mask = scene.box(left, top, left + width, scene.horizon + 0.06 * h)
            color = textures.color_near(rng, (110, 130, 160), 35)
            scene.paint(mask, textures.windows(rng, color), BUILDING)
            if rng.random() < 0.35:  # a billboard in the colours of anything; still building
                x, y = left + width * rng.uniform(0.1, 0.6), top + rng.uniform(0.1, 0.3) * h
                board = scene.box(x, y, x + 0.3 * width, y + 0.1 * h) & mask
                scene.paint(board, textures.flat(textures.random_color(rng)), None)
        left += width * rng.uniform(0.75, 1.15)
    for _ in range(int(rng.integers(1, 5))):
        x, size = rng.uniform(0, w), rng.uniform(0.08, 0.2) * h
        ground = scene.horizon + rng.uniform(0, 0.07) * h
        mask = scene.box(x - 0.12 * size, ground - size, x + 0.12 * size, ground)
        for _ in range(5):
            dx, dy = rng.normal(0, 0.55, 2) * size
            mask |= scene.disc(x + dx, ground - 1.3 * size + 0.7 * dy, 0.8 * size, 0.7 * size)
        color = textures.color_near(rng, (50, 110, 80), 25)
        scene.paint(mask, textures.leaves(rng, color), VEGETATION)


def _street(scene: Scene) -> None:
    rng, h, w = scene.rng, scene.height, scene.width
    ground = scene.box(0, scene.horizon + 0.03 * h, w, h)
    # Pavement tends to be lighter than asphalt, but not always.
    scene.paint(ground, textures.bricks(rng, textures.gray_color(rng, 100, 200)), SIDEWALK)
    vanishing = rng.uniform(0.3, 0.7) * w
    near_left, near_right = rng.uniform(-0.4, 0.2) * w, rng.uniform(0.8, 1.4) * w
    far = rng.uniform(0.04, 0.12) * w
    y = scene.horizon + 0.03 * h
    road = scene.polygon(
        [(vanishing - far, y), (vanishing + far, y), (near_right, h), (near_left, h)]
    )
    color = textures.gray_color(rng, 60, 140)
    scene.paint(road, textures.grainy(rng, color, rng.uniform(3, 9)), ROAD)
    if rng.random() < 0.75:
        middle = (near_left + near_right) / 2
        paint = textures.flat(textures.gray_color(rng, 190, 240))
        for near in np.arange(0.1, 1.0, 0.25):
            ends = []
            for t in (near, near + 0.12):
                x = vanishing + (middle - vanishing) * t
                ends.append((x, y + (h - y) * t, 0.012 * w * (0.2 + t)))
            (x0, y0, r0), (x1, y1, r1) = ends
            mark = scene.polygon([(x0 - r0, y0), (x0 + r0, y0), (x1 + r1, y1), (x1 - r1, y1)])
            scene.paint(mark & road, paint, None)
    for _ in range(int(rng.integers(0, 3))):  # shadows: darker, but the same class
        shadow = scene.disc(
            rng.uniform(0, w), rng.uniform(scene.horizon, h), 0.2 * w, rng.uniform(0.02, 0.1) * h
        )
        scene.image[shadow & ground] *= rng.uniform(0.55, 0.8)


def _fences(scene: Scene) -> None:
    """Upright bars, the background showing between them: the whole area is fence."""
    rng, h, w = scene.rng, scene.height, scene.width
    for _ in range(int(rng.integers(0, 3))):
        foot = scene.horizon + rng.uniform(0.04, 0.25) * h
        tall = 0.75 * scene.scale_at(foot)
        left = rng.uniform(-0.1, 0.8) * w
        area = scene.box(left, foot - tall, left + rng.uniform(0.15, 0.45) * w, foot)
        bars = (np.arange(w) % int(rng.integers(5, 9)) < 2)[None, :] & area
        rail = area & scene.box(0, foot - 0.9 * tall, w, foot - 0.9 * tall + 2)
        color = textures.color_near(rng, (90, 110, 130), 40)
        scene.paint(bars | rail, textures.flat(color), None)
        scene.labels[area] = FENCE


def _car(scene: Scene, foot: float) -> None:
    rng, w = scene.rng, scene.width
    tall = 0.7 * scene.scale_at(foot)
    long = tall * rng.uniform(1.5, 2.4)
    x = rng.uniform(-0.1, 1.05) * w
    body = scene.box(x, foot - 0.62 * tall, x + long, foot - 0.12 * tall)
    cabin = scene.polygon(
        [
            (x + 0.12 * long, foot - 0.6 * tall),
            (x + 0.26 * long, foot - tall),
            (x + 0.72 * long, foot - tall),
            (x + 0.9 * long, foot - 0.6 * tall),
        ]
    )
    wheels = scene.disc(x + 0.22 * long, foot - 0.16 * tall, 0.16 * tall, 0.16 * tall)
    wheels |= scene.disc(x + 0.78 * long, foot - 0.16 * tall, 0.16 * tall, 0.16 * tall)
    glass = scene.box(x + 0.28 * long, foot - 0.93 * tall, x + 0.7 * long, foot - 0.64 * tall)
    color = textures.random_color(rng)
    scene.paint(body | cabin, textures.grainy(rng, color, 3), CAR)
    scene.paint(glass & cabin, textures.flat(textures.gray_color(rng, 20, 120)), CAR)
    scene.paint(wheels, textures.flat(textures.gray_color(rng, 10, 60)), CAR)


def _truck(scene: Scene, foot: float) -> None:
    """Like a car below, like a wall above: the load may carry a building's texture."""
    rng, w = scene.rng, scene.width
    tall = 1.2 * scene.scale_at(foot)
    long = tall * rng.uniform(1.3, 2.0)
    x = rng.uniform(-0.15, 1.0) * w
    load = scene.box(x, foot - tall, x + 0.75 * long, foot - 0.12 * tall)
    cabin = scene.box(x + 0.77 * long, foot - 0.7 * tall, x + long, foot - 0.12 * tall)
    color = textures.random_color(rng)
    texture = (
        textures.stripes(color, color * 0.7, int(rng.integers(4, 12)))
        if rng.random() < 0.5
        else textures.grainy(rng, color, 5)
    )
    scene.paint(load, texture, TRUCK)
    scene.paint(cabin, textures.grainy(rng, textures.random_color(rng), 3), TRUCK)
    wheels = scene.disc(x + 0.2 * long, foot - 0.1 * tall, 0.1 * tall, 0.1 * tall)
    wheels |= scene.disc(x + 0.85 * long, foot - 0.1 * tall, 0.1 * tall, 0.1 * tall)
    scene.paint(wheels, textures.flat(textures.gray_color(rng, 10, 60)), TRUCK)


def _person(scene: Scene, foot: float) -> None:
    rng, w = scene.rng, scene.width
    tall = scene.scale_at(foot)
    x = rng.uniform(0, 1) * w
    head = scene.disc(x, foot - 0.91 * tall, 0.09 * tall, 0.1 * tall)
    torso = scene.box(x - 0.16 * tall, foot - 0.82 * tall, x + 0.16 * tall, foot - 0.45 * tall)
    stride = rng.uniform(0.0, 0.14) * tall
    legs = np.zeros_like(torso)
    for side in (-1, 1):
        hip, sole = x + side * 0.06 * tall, x + side * (0.06 * tall + stride)
        legs |= scene.polygon(
            [
                (hip - 0.08 * tall, foot - 0.46 * tall),
                (hip + 0.08 * tall, foot - 0.46 * tall),
                (sole + 0.06 * tall, foot),
                (sole - 0.06 * tall, foot),
            ]
        )
    skin = textures.flat(np.array([90, 120, 170]) * rng.uniform(0.5, 1.3))
    scene.paint(legs, textures.grainy(rng, textures.color_near(rng, (90, 60, 50), 30), 3), PERSON)
    scene.paint(torso, textures.grainy(rng, textures.random_color(rng), 3), PERSON)
    scene.paint(head, skin, PERSON)


def _post(scene: Scene, foot: float) -> None:
    """A thin pole, two times in three with a small sign on it."""
    rng, w = scene.rng, scene.width
    tall = scene.scale_at(foot) * rng.uniform(1.2, 1.9)
    x = rng.uniform(0.02, 0.98) * w
    half = max(0.03 * tall, 1.5)
    color = textures.gray_color(rng, 40, 200, 20)
    scene.paint(scene.box(x - half, foot - tall, x + half, foot), textures.flat(color), POLE)
    if rng.random() < 0.67:
        radius = max(0.15 * tall, 5.0)
        y = foot - tall
        if rng.random() < 0.5:
            plate = scene.disc(x, y, radius, radius)
        else:
            plate = scene.polygon(
                [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
            )
        first, second = textures.random_color(rng), textures.random_color(rng)
        scene.paint(plate, textures.flat(first), SIGN)
        inner = scene.disc(x, y + 0.15 * radius, 0.5 * radius, 0.45 * radius)
        scene.paint(inner & plate, textures.flat(second), SIGN)


def _bonnet(scene: Scene) -> None:
    """The camera car's own bonnet at the lower edge: ignored."""
    h, w, rng = scene.height, scene.width, scene.rng
    bonnet = scene.disc(w / 2, h * 1.02, w * rng.uniform(0.4, 0.6), h * rng.uniform(0.05, 0.1))
    color = textures.random_color(rng)
    scene.paint(bonnet, textures.grainy(rng, color, 3), IGNORE)


def _finish(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Light, colour cast, blur and sensor noise; then average down to the final size."""
    rng, step = scene.rng, OVERSAMPLING
    size = (scene.width // step, scene.height // step)
    small = cv2.resize(np.clip(scene.image, 0, 255), size, interpolation=cv2.INTER_AREA)
    lit = small * (rng.uniform(0.65, 1.2) * rng.normal(1, 0.06, 3))
    image = cv2.GaussianBlur(lit, (3, 3), rng.uniform(0.2, 0.8))
    image = image + rng.normal(0, rng.uniform(1, 6), image.shape)
    labels = scene.labels[step // 2 :: step, step // 2 :: step]
    return np.clip(np.round(image), 0, 255).astype(np.uint8), np.ascontiguousarray(labels)
