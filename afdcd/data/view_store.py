"""Tensors of views of images on disk, a file for each view."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from afdcd.utils.files import write_atomically

_SUM = "crc32"
logger = logging.getLogger(__name__)
_SUFFIX = ".safetensors"
# Images whose files lie in one folder.
_TOGETHER = 100


class ViewStore:
    """Reads and writes the tensors of (image, view); any number of processes may do so at once.

    A file gets its name when it is whole, and holds a checksum, so that what a power cut or a full
    disk has left behind is never taken for a view: it counts as missing.

    Args:
        folder: that holds the files; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, image: int, view: int) -> Path:
        """The file of a view."""
        return self.folder / f"{image // _TOGETHER:06d}" / f"{image:08d}_{view:04d}{_SUFFIX}"

    def read(self, image: int, view: int) -> dict[str, torch.Tensor] | None:
        """A view's tensors, mapped into memory; None where they are missing or damaged.

        A damaged file is removed, so that it counts as missing everywhere.
        """
        path = self.path(image, view)
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                if (file.metadata() or {}).get(_SUM) == _checksum(tensors):
                    return tensors
        except OSError:
            return None  # not there, or not to be read now
        except (SafetensorError, ValueError):
            pass
        logger.warning("%s is damaged: it counts as missing from now on", path)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None

    def write(self, image: int, view: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write a view, in place of what there is of it.

        Raises:
            OSError: it can't be written; nothing of it stays behind.
        """
        content = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        path = self.path(image, view)
        whole = save(content, {_SUM: _checksum(content)})
        # Its checksum tells what a power cut has left behind: no need to wait for the disk.
        write_atomically(path, lambda file: file.write(whole), flush=False)

    def there(self) -> Iterator[tuple[int, int]]:
        """(image, view) of the files, without looking into them."""
        if not self.folder.is_dir():
            return
        for folder in os.scandir(self.folder):
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder.path):
                image, sign, view = entry.name.removesuffix(_SUFFIX).partition("_")
                if sign and image.isdecimal() and view.isdecimal():
                    yield int(image), int(view)


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        values = tensors[name].contiguous().view(torch.uint8).numpy()
        total = zlib.crc32(values, total)  # type: ignore[arg-type]  # any buffer
    return str(total)
