#!/usr/bin/env python3
"""Writes the stub's snapshot table (snap.c) from the rows of syscalls.def: snap_gen.py DEF OUT."""
import re
import sys

MAX_ARGS = 3  # STUB_SNAPS


def row_of(formats):
    row = []
    for arg, word in enumerate(formats.split()):
        kind, _, param = word.partition(':')
        if kind in ('path', 'str'):
            row.append(('SNAP_STR', arg, 0))
        elif kind == 'in' and 0 < int(param) <= 4096:
            row.append(('SNAP_FIXED', arg, int(param)))
        elif kind == 'inbuf':
            row.append(('SNAP_LENGTH', arg, int(param)))
    return tuple(row[:MAX_ARGS])


def main():
    rows, index = [], {}
    pattern = re.compile(r'^SC\((\d+),\s*\w+,\s*\w+,\s*"([^"]*)"')
    with open(sys.argv[1]) as f:
        for line in f:
            m = pattern.match(line)
            row = row_of(m.group(2)) if m else ()
            if not row:
                continue
            if row not in rows:
                rows.append(row)
            index[int(m.group(1))] = rows.index(row) + 1
    with open(sys.argv[2], 'w') as out:
        out.write('static const struct snap_arg snap_rows[][STUB_SNAPS] = {\n')
        for row in rows:
            out.write('\t{%s},\n' % ', '.join('{%s, %d, %d}' % a for a in row))
        out.write('};\nstatic const uint8_t snap_row_of[] = {\n')
        for nr, i in sorted(index.items()):
            out.write('\t[%d] = %d,\n' % (nr, i))
        out.write('};\n')
    assert len(rows) < 256


main()
