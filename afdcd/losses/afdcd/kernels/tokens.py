"""Tokens, each a group of channels at one position, gathered by patch."""

from __future__ import annotations

import torch


def patch_tokens(
    features: torch.Tensor, *, groups: int, patch: tuple[int, int], tokens_last: bool = False
) -> torch.Tensor:
    """Cut a map [N, C, H, W] into the tokens [P, L, D] of its patches.

    Token ``position * M + group`` of a patch is a contiguous group of channels at one position.
    What the patch grid can't cover is cropped at the bottom and right. With ``tokens_last`` the
    tokens lie in memory as [P, D, L].
    """
    length, width = patch[0] * patch[1] * groups, features.shape[1] // groups
    x = _split(features, groups, patch)
    if tokens_last:
        return x.permute(0, 3, 5, 2, 4, 6, 1).reshape(-1, width, length).mT
    return x.permute(0, 3, 5, 4, 6, 1, 2).reshape(-1, length, width)


def write_tokens(
    features: torch.Tensor, tokens: torch.Tensor, *, groups: int, patch: tuple[int, int]
) -> None:
    """Write tokens back to where `patch_tokens` reads them from."""
    split = _split(features, groups, patch)
    n, m, d, rows, h, cols, w = split.shape
    split.copy_(tokens.view(n, rows, cols, h, w, m, d).permute(0, 5, 6, 1, 3, 2, 4))


def _split(features: torch.Tensor, groups: int, patch: tuple[int, int]) -> torch.Tensor:
    """A view [N, M, D, H // h, h, W // w, w] of what the patches cover."""
    h, w = patch
    rows, cols = features.shape[2] // h, features.shape[3] // w
    x = features[:, :, : rows * h, : cols * w]
    return x.unflatten(3, (cols, w)).unflatten(2, (rows, h)).unflatten(1, (groups, -1))
