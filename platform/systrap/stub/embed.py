#!/usr/bin/env python3
"""Writes a file as a C array: embed.py FILE OUT."""
import sys

with open(sys.argv[1], 'rb') as f:
    data = f.read()
with open(sys.argv[2], 'w') as out:
    out.write('#include "platform/systrap/stub_image.h"\n\n')
    out.write('const unsigned char stub_image[] = {\n')
    for i in range(0, len(data), 24):
        out.write(','.join(str(b) for b in data[i:i + 24]) + ',\n')
    out.write('};\nconst size_t stub_image_size = sizeof(stub_image);\n')
