"""Packs GNU Unifont's glyphs for `font.rs`: python3 pack.py unifont_all.hex plane00-combining.txt

Both files are part of GNU Unifont's releases; what is packed here is version 16.0.04. Kept are plane 0 without its private
area, and the symbols of plane 1. `narrow.z` has the glyphs of 8 x 16 pixels, `wide.z` those of 16 x 16, each as a zlib stream:

    ranges: u32 count, then for each: u32 first code point, u16 glyphs, u16 columns to go back before drawing
            (0: stands by itself; 255: a mark that is centred over its letter)
    glyphs: 16 bytes each, a row a byte; wide ones have 16 more, for their right half

All numbers are little-endian.
"""

import struct
import sys
import zlib


def kept(code):
    private, surrogate = 0xE000 <= code <= 0xF8FF, 0xD800 <= code <= 0xDFFF
    return code <= 0xFFFF and not private and not surrogate or 0x1F000 <= code <= 0x1FBFF


def pack(glyphs, back):
    ranges = []
    for code in sorted(glyphs):
        shift = back.get(code, 0)
        if ranges and ranges[-1][0] + ranges[-1][1] == code and ranges[-1][2] == shift:
            ranges[-1][1] += 1
        else:
            ranges.append([code, 1, shift])
    # The halves of a wide glyph one after the other compress by a tenth better than row by row.
    bits = [glyphs[code] if len(glyphs[code]) == 16 else glyphs[code][0::2] + glyphs[code][1::2] for code in sorted(glyphs)]
    head = struct.pack("<I", len(ranges)) + b"".join(struct.pack("<IHH", *r) for r in ranges)
    return zlib.compress(head + b"".join(bits), 9)


def main(hex_file, combining_file):
    lines = (line.strip().split(":") for line in open(hex_file))
    glyphs = {int(code, 16): bytes.fromhex(bits) for code, bits in lines if kept(int(code, 16))}
    lines = (line.strip().split(":") for line in open(combining_file))
    back = {int(code, 16): -int(shift) or 255 for code, shift in lines}
    for name, size in [("narrow.z", 16), ("wide.z", 32)]:
        with open(name, "wb") as out:
            out.write(pack({code: bits for code, bits in glyphs.items() if len(bits) == size}, back))


main(*sys.argv[1:])
