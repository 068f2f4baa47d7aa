"""Zstandard with a bound on what comes out."""

from __future__ import annotations

import sys
import threading

from fsdcore.errors import WireError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class _Compressors(threading.local):
    """This thread's compressors: making one costs more than a short message."""

    def __init__(self) -> None:
        self.made: dict[tuple[int, bool], zstd.ZstdCompressor] = {}


_COMPRESSORS = _Compressors()


def compress(data: bytes, level: int = 1, checksum: bool = False) -> bytes:
    """`data` as one Zstandard frame, with a checksum of `data` if asked."""
    made = _COMPRESSORS.made
    if (level, checksum) not in made:
        parameters = zstd.CompressionParameter
        options: dict[int, int] = {parameters.compression_level: level, parameters.checksum_flag: int(checksum)}
        made[level, checksum] = zstd.ZstdCompressor(options=options)
    return made[level, checksum].compress(data, mode=zstd.ZstdCompressor.FLUSH_FRAME)


def decompress(data: bytes | memoryview, limit: int) -> bytes:
    """What `compress` was given, at most `limit` bytes.

    `WireError` if the data are damaged, cut short, followed by more, or expand to more than `limit`; no more than
    `limit + 1` bytes are ever made.
    """
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})
    try:
        plain = decompressor.decompress(data, max_length=limit + 1)
    except zstd.ZstdError as error:
        raise WireError(f"damaged compressed data: {error}") from error
    if len(plain) > limit:
        raise WireError(f"compressed data expand to more than the {limit} bytes allowed")
    if not decompressor.eof or decompressor.unused_data:
        raise WireError("compressed data are cut short or followed by other bytes")
    return plain
