"""Draws how data are divided: a bar for each client, its classes in colours. Needs Pillow, an optional extra."""

import colorsys
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from fedjob.failure import EXIT_USAGE, Failure
from fedjob_protocol.survey import ClientShare, Survey

MAX_CLIENTS: Final = 1000
"""More would be a picture that nobody can open."""
MAX_LEGEND: Final = 20
"""Classes up to which the colours are explained."""
BAR, GAP, WIDTH, MARGIN, LEGEND = 16, 6, 800, 16, 28
FONT_SIZE: Final = 13
INK, PAPER, GREY = (32, 32, 32), (255, 255, 255), (120, 120, 120)
GOLDEN: Final = 0.618033988749895
"""Steps of the hue by the golden ratio: neighbours differ for any number of classes."""

Colour = tuple[int, int, int]


def draw(survey: Survey, file: Path, *, title: str) -> None:
    """Write the picture as PNG.

    Raises:
        Failure: There are too many clients, or the file cannot be written.
    """
    shares = survey.clients
    if len(shares) > MAX_CLIENTS:
        raise Failure(f"--plot draws at most {MAX_CLIENTS} clients, there are {len(shares)}", exit_code=EXIT_USAGE)
    picture = _picture(shares, title)
    try:
        picture.save(file, format="PNG")
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}", exit_code=EXIT_USAGE) from error


def _picture(shares: tuple[ClientShare, ...], title: str) -> Image.Image:
    font = ImageFont.load_default(FONT_SIZE)
    classes = max((len(share.labels) for share in shares if share.labels is not None), default=0)
    names = MARGIN + max(int(font.getlength(share.name)) for share in shares) + 8
    top = MARGIN + LEGEND + (LEGEND if 0 < classes <= MAX_LEGEND else 0)
    height = top + len(shares) * (BAR + GAP) + MARGIN
    picture = Image.new("RGB", (names + WIDTH + 80, height), PAPER)
    canvas = ImageDraw.Draw(picture)
    total = sum(share.examples for share in shares)
    canvas.text((MARGIN, MARGIN), f"{title}: {len(shares)} clients, {total} examples", fill=INK, font=font)
    if 0 < classes <= MAX_LEGEND:
        for label in range(classes):
            left = MARGIN + label * 44
            canvas.rectangle((left, MARGIN + LEGEND, left + 12, MARGIN + LEGEND + 12), fill=colour(label))
            canvas.text((left + 16, MARGIN + LEGEND - 2), str(label), fill=INK, font=font)
    scale = WIDTH / max(share.examples for share in shares)
    for row, share in enumerate(shares):
        y = top + row * (BAR + GAP)
        canvas.text((MARGIN, y), share.name, fill=INK, font=font)
        _bar(canvas, share, names, y, scale)
        canvas.text((names + share.examples * scale + 6, y), str(share.examples), fill=GREY, font=font)
    return picture


def _bar(canvas: ImageDraw.ImageDraw, share: ClientShare, left: int, y: int, scale: float) -> None:
    done = 0
    for label, count in enumerate(share.labels or (share.examples,)):
        begin, end = left + round(done * scale), left + round((done + count) * scale)
        if end > begin:
            canvas.rectangle((begin, y, end - 1, y + BAR - 1), fill=colour(label))
        done += count


def colour(label: int) -> Colour:
    """Of a class: the same in every picture."""
    red, green, blue = colorsys.hls_to_rgb(label * GOLDEN % 1, 0.45 + 0.15 * (label % 2), 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)
