#!/usr/bin/python3
"""Draws what `tmux capture-pane -e -p` prints as an SVG: svg.py COLUMNS ROWS [light] <pane >picture.svg"""
import re
import sys
import unicodedata
from html import escape

W, H, PAD, SIZE = 8.4, 18, 14, 14
ANSI = ["#1b1f27", "#e57474", "#8fbf7f", "#e0b060", "#7fa7d8", "#b294bb", "#7fb4ca", "#c8ced8"]


def palette(n):
    if n < 16:
        return ANSI[n % 8]
    if n >= 232:
        return "#" + "%02x" % (8 + 10 * (n - 232)) * 3
    n -= 16
    return "#" + "".join("%02x" % (0 if c == 0 else 55 + 40 * c) for c in (n // 36, n // 6 % 6, n % 6))


class Style:
    def __init__(self):
        self.fg = self.bg = None
        self.bold = self.reverse = False

    def sgr(self, codes):
        codes = [int(c or 0) for c in codes.replace(":", ";").split(";")]
        while codes:
            c = codes.pop(0)
            if c == 0:
                self.__init__()
            elif c == 1:
                self.bold = True
            elif c == 22:
                self.bold = False
            elif c in (7, 27):
                self.reverse = c == 7
            elif c in (38, 48):
                kind = codes.pop(0)
                colour = "#%02x%02x%02x" % tuple(codes[:3]) if kind == 2 else palette(codes[0])
                del codes[: 3 if kind == 2 else 1]
                setattr(self, "fg" if c == 38 else "bg", colour)
            elif c in (39, 49):
                setattr(self, "fg" if c == 39 else "bg", None)
            elif 30 <= c <= 37:
                self.fg = ANSI[c - 30]
            elif 40 <= c <= 47:
                self.bg = ANSI[c - 40]


def columns(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def main():
    cols, rows, light = int(sys.argv[1]), int(sys.argv[2]), "light" in sys.argv[3:]
    ground, ink = ("#fbfcfd", "#1f2630") if light else ("#14181f", "#d5dae2")
    w, h = cols * W + 2 * PAD, rows * H + 2 * PAD
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.0f} {h:.0f}" '
        f'font-family="DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="{SIZE}">',
        f'<rect width="100%" height="100%" rx="8" fill="{ground}"/>',
    ]
    style = Style()
    for y, line in enumerate(sys.stdin.read().split("\n")[:rows]):
        x = 0
        for i, part in enumerate(re.split(r"\x1b\[([0-9;:]*)m", line)):
            if i % 2:
                style.sgr(part)
                continue
            if not part:
                continue
            n = columns(part)
            fg, bg = style.fg or ink, style.bg
            if style.reverse:
                fg, bg = bg or ground, fg
            left, top = PAD + x * W, PAD + y * H
            if bg:
                out.append(f'<rect x="{left:.1f}" y="{top}" width="{n * W:.1f}" height="{H}" fill="{bg}"/>')
            if part.strip():
                body = part.rstrip()
                lead = len(body) - len(body.lstrip())
                body = body.lstrip()
                weight = ' font-weight="bold"' if style.bold else ""
                out.append(
                    f'<text x="{left + lead * W:.1f}" y="{top + 14}" textLength="{columns(body) * W:.1f}" fill="{fg}"{weight} '
                    f'xml:space="preserve">{escape(body)}</text>'
                )
            x += n
    print("\n".join(out + ["</svg>"]))


main()
