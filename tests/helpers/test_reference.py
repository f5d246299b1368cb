"""The formula of the reference vectors against its published check values."""

import zlib

import numpy as np

from helpers import reference


def test_bits():
    assert zlib.crc32(b"test") == 3632233996
    expected = [0x91E8EBD6113EF424, 0xE8F9168AE03D334B, 0xDBAB8E25BFCD5E9A]
    assert reference.bits("test", 3).tolist() == expected


def test_normal_uniform_integers():
    np.testing.assert_allclose(
        reference.normal("test", (6,)),
        [0.88722092, 0.12889415, 0.92165786, -0.77867711, -0.44894913, -1.40100038],
        rtol=1e-7,
    )
    np.testing.assert_allclose(
        reference.uniform("test", (4,)), [0.5699603, 0.91005075, 0.85808647, 0.39036715], rtol=1e-7
    )
    assert reference.integers("test", (8,), 19).tolist() == [10, 17, 16, 7, 9, 3, 16, 14]
    image = reference.normal("image/65x97", (1, 3, 65, 97))
    assert image.astype(np.float64).sum() == 62.27207454695599


def test_weights():
    conv = reference.weight("pretrained.conv1.weight", (64, 3, 3, 3))
    assert abs(conv.astype(np.float64).sum() - 9.055355450327625) < 1e-9
    variance = reference.weight("pretrained.bn1.running_var", (64,))
    assert abs(variance.astype(np.float64).sum() - 86.86820530891418) < 1e-9
    gain = reference.weight("pretrained.layer1.0.bn2.weight", (64,))
    assert abs(gain.astype(np.float64).sum() - 31.371810734272003) < 1e-9
