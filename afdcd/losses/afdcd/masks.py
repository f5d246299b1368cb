"""Which positions of the student's feature map the projector gets to see.

Af-DCD (arXiv 2312.04168), section 3.2: a masked student feature map is regenerated to the
teacher's. A mask is a ``[N, 1, H, W]`` tensor of 0 (hidden) and 1 (kept); all channels of a
position are hidden together.
"""

from __future__ import annotations

import torch

MASK_KINDS = ("random", "centre")


def random_mask(
    batch: int,
    height: int,
    width: int,
    *,
    ratio: float = 0.75,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Hide a random share of the positions, each independently.

    A position is hidden where a uniform draw ``[N, 1, H, W]`` exceeds ``1 - ratio``, as in the
    published implementation, so the hidden share of one mask varies around ``ratio``.

    The draw is made on the generator's device (the CPU when there is none), so that one seed
    gives one mask on every device.

    Args:
        batch, height, width: N, H and W of the mask.
        ratio: expected share of hidden positions, 0..1. The paper uses 0.75.
        generator: source of the draw; the global CPU generator when None.
        device: of the mask.

    Returns:
        float32 tensor ``[N, 1, H, W]`` of 0 (hidden) and 1 (kept).

    Raises:
        ValueError: ``ratio`` outside 0..1.
    """
    check_mask_ratio(ratio)
    draw_device = generator.device if generator is not None else torch.device("cpu")
    noise = torch.rand((batch, 1, height, width), generator=generator, device=draw_device)
    return (noise <= 1.0 - ratio).float().to(device, non_blocking=True)


def centre_mask(
    batch: int, height: int, width: int, *, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Hide the middle third of the rows times the middle third of the columns.

    Rows ``H // 3`` to ``(2 * H) // 3 - 1`` are hidden, and columns likewise.

    Returns:
        float32 tensor ``[N, 1, H, W]`` of 0 (hidden) and 1 (kept).
    """
    mask = torch.ones((batch, 1, height, width), device=device)
    mask[:, :, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 0.0
    return mask


def check_mask_ratio(ratio: float) -> None:
    """Raise ValueError unless ``ratio`` is a share between 0 and 1."""
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"mask_ratio is the share of hidden positions, 0..1; got {ratio}")


def check_mask_kind(kind: str) -> None:
    """Raise ValueError unless ``kind`` is one of `MASK_KINDS`."""
    if kind not in MASK_KINDS:
        raise ValueError(f"mask must be one of {', '.join(MASK_KINDS)}; got {kind!r}")


def make_mask(
    kind: str,
    like: torch.Tensor,
    *,
    ratio: float = 0.75,
    generator: torch.Generator | None = None,
    part: tuple[int, int] = (0, 1),
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Make the mask named ``kind`` (see `MASK_KINDS`) for a feature map ``like`` [N, C, H, W].

    Args:
        kind: one of `MASK_KINDS`.
        like: the feature map.
        ratio, generator: see `random_mask`.
        part: which part of the whole batch ``like`` is, and of how many equal ones. The mask is
            drawn for the whole batch, so that an image's mask doesn't depend on how the batch is
            shared among processes.
        device: of the mask; by default the feature map's.
    """
    check_mask_kind(kind)
    batch, _, height, width = like.shape
    device = like.device if device is None else device
    if kind == "centre":
        return centre_mask(batch, height, width, device=device)
    index, count = part
    batch_mask = random_mask(batch * count, height, width, ratio=ratio, generator=generator)
    return batch_mask[index * batch : (index + 1) * batch].to(device, non_blocking=True)
