"""What a file is that was named as a checkpoint and isn't one, by its content, not by its name."""

from __future__ import annotations

import io
import zipfile

AGAIN = "Download or copy it again"
_CONVERT = "Name a checkpoint of PyTorch (.pth, .pt), of Detectron2 (.pkl), or a safetensors file"

# First bytes, what has them, and what to do.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is compressed with gzip", "Unpack it, and name the checkpoint in it"),
    (b"7z\xbc\xaf", "is a 7z archive", "Unpack it, and name the checkpoint in it"),
    (b"\xfd7zXZ", "is compressed with xz", "Unpack it, and name the checkpoint in it"),
    (b"\x89HDF\r\n", "is an HDF5 file, as Keras writes", _CONVERT),
    (b"GGUF", "is a GGUF file", _CONVERT),
    (b"\x93NUMPY", "is a numpy array", _CONVERT),
    (b"\x89PNG", "is a PNG image", _CONVERT),
    (b"\xff\xd8\xff", "is a JPEG image", _CONVERT),
    (b"%PDF", "is a PDF document", _CONVERT),
)
# Second field of an ONNX file, after the version of its format: any of a ModelProto's.
_ONNX_FIELDS = frozenset((0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42))
# How much of a file is looked at to tell text from data.
_SAMPLE = 4096


def is_zip(data: bytes) -> bool:
    """Whether it begins as a zip archive, which is what ``torch.save`` writes."""
    return data.startswith(b"PK")


def is_safetensors(data: bytes) -> bool:
    """Whether it begins as a safetensors file: the length of a JSON header, and the header."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= 100_000_000


def foreign_kind(data: bytes) -> tuple[str, str] | None:
    """What a file is, if no checkpoint, and what to do; None for what may be a checkpoint.

    Args:
        data: the whole file.
    """
    if not data:
        return "is empty: its download or copy was cut off", AGAIN
    if is_zip(data):
        return _zip_kind(data)
    for start, what, action in _SIGNATURES:
        if data.startswith(start):
            return what, action
    if data[257:262] == b"ustar":
        return "is a tar archive", "Unpack it, and name the checkpoint in it"
    if is_safetensors(data):
        return None
    if data[0] == 0x08 and len(data) > 2 and data[1] < 32 and data[2] in _ONNX_FIELDS:
        return "is an ONNX file, which has no PyTorch names", _CONVERT
    return _text_kind(data)


def _zip_kind(data: bytes) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return f"is truncated: the zip archive in it has no end after {len(data)} bytes", AGAIN
    parts = {part for name in names for part in name.split("/")}
    if "constants.pkl" in parts or "code" in parts:
        return (
            "is a TorchScript archive, a network with its code",
            "Load it by torch.jit.load where you trust it, save its state_dict() by torch.save, "
            "and name that file",
        )
    if "data.pkl" in parts and "models" not in parts:
        if part := _damaged_part(data):
            return f"is damaged: its part {part} doesn't match its checksum", AGAIN
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "is a numpy archive (.npz)", _CONVERT
    if "archive_format" in parts or "models" in parts:
        return (
            "is an archive of torch.export, a program",
            "Save the state_dict() of its module by torch.save, and name that file",
        )
    held = f", which holds {', '.join(names[:3])}" if names else ""
    return f"is a zip archive, but none of torch.save{held}", "Unpack it, and name what is in it"


def _damaged_part(data: bytes) -> str | None:
    """A part of a zip archive that its checksum doesn't fit; None where there is none.

    PyTorch can be told to write no checksums: they are all 0 then, and nothing is known.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if all(info.CRC == 0 for info in archive.infolist()):
            return None
        try:
            return archive.testzip()
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            return f"({error})"


def _text_kind(data: bytes) -> tuple[str, str] | None:
    """Of texts; pickles of protocol 0 are text, too, and end with a full stop."""
    sample = data[:_SAMPLE].removeprefix(b"\xef\xbb\xbf").lstrip()
    if sample.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, a few lines of text in place of the file itself",
            "Fetch the file: git lfs pull in its repository",
        )
    if sample[:9].lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return (
            "is a web page (HTML): the download got a page, such as a login or a confirmation, "
            "in place of the file",
            "Download the file itself",
        )
    if any(byte < 9 or 13 < byte < 32 for byte in sample) or data.rstrip().endswith(b"."):
        return None
    text = sample.decode("utf-8", errors="ignore")
    if not sample or len(text.encode()) < len(sample) - 3:  # a letter may be cut at the end
        return None
    if sample.startswith((b"{", b"[")):
        return "is JSON text, such as a config or an index, with no tensors", _CONVERT
    first = text.splitlines()[0][:40]
    return f"is a text file, which begins {first!r}", _CONVERT
