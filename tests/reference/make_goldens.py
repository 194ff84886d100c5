"""Writes tests/goldens/goldens.json from the reference pipeline, and says how firm the goldens are.

    models/fetch.sh
    python -m venv /tmp/reference && /tmp/reference/bin/pip install -r tests/reference/requirements.txt
    /tmp/reference/bin/python tests/reference/make_goldens.py

The goldens hold numbers only, no photos. A test replays a golden from the decoded photo in these steps,
all in f64; the first two only where the variant has them:

crop [x, y, w, h]   The pixels of columns x .. x+w-1 and rows y .. y+h-1.

rotate degrees      About the centre of the (cropped) image of W by H pixels, same size, counter-clockwise as
                    seen, with a = degrees * pi / 180, cx = (W - 1) / 2, cy = (H - 1) / 2. The output pixel
                    (x, y) samples the point
                        sx = cx + cos(a) * (x - cx) - sin(a) * (y - cy)
                        sy = cy + sin(a) * (x - cx) + cos(a) * (y - cy)
                    between its four neighbours, with x0 = floor(sx), y0 = floor(sy), u = sx - x0, v = sy - y0:
                        p = (1 - v) * ((1 - u) * p[y0][x0]     + u * p[y0][x0 + 1])
                          +      v  * ((1 - u) * p[y0 + 1][x0] + u * p[y0 + 1][x0 + 1])
                    where a neighbour outside the image counts as 0, and rounds half up: floor(p + 0.5).

pipeline            Detection at detector_size, choice of a face, alignment, embedding.

bbox, landmarks and score are those of the chosen face, in pixels of the varied image.
"""

import json
import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

import pipeline as reference

PHOTOS = reference.MODELS / "research" / "photos"
TARGET = reference.REPOSITORY / "tests" / "goldens" / "goldens.json"

WHOLE = {}
VARIANTS = {
    "yaoming.jpg": [
        {"crop": [20, 20, 200, 260]},
        {"crop": [45, 45, 160, 200]},
        {"crop": [0, 50, 233, 237]},
        {"rotate": 10},
        {"rotate": -10},
        {"rotate": 20},
        {"rotate": -25.5},
        {"crop": [20, 20, 200, 260], "rotate": 15},
    ],
    "gdp.jpg": [
        {"crop": [280, 60, 220, 280]},
        {"crop": [300, 80, 170, 200]},
        {"crop": [250, 40, 250, 350]},
        {"crop": [280, 60, 220, 280], "rotate": 8},
        {"crop": [280, 60, 220, 280], "rotate": -12},
        {"crop": [300, 80, 170, 200], "rotate": 18.25},
    ],
    "players.jpg": [
        {"crop": [600, 400, 160, 180]},
        {"crop": [580, 390, 200, 160]},
        {"crop": [620, 410, 120, 130]},
        {"crop": [600, 400, 160, 180], "rotate": 9},
        {"crop": [600, 400, 160, 180], "rotate": -14},
        {"crop": [620, 410, 120, 130], "rotate": 6.5},
    ],
}


def sample(image, sx, sy):
    """Bilinear in f64 at the points (sx, sy), 0 outside."""
    height, width = image.shape[:2]
    x0, y0 = np.floor(sx).astype(int), np.floor(sy).astype(int)
    u, v = (sx - x0)[..., None], (sy - y0)[..., None]

    def neighbour(y, x):
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        pixels = image[y.clip(0, height - 1), x.clip(0, width - 1)].astype(np.float64)
        return np.where(inside[..., None], pixels, 0.0)

    upper = (1 - u) * neighbour(y0, x0) + u * neighbour(y0, x0 + 1)
    lower = (1 - u) * neighbour(y0 + 1, x0) + u * neighbour(y0 + 1, x0 + 1)
    return (1 - v) * upper + v * lower


def round_half_up(pixels):
    return np.floor(pixels + 0.5).astype(np.uint8)


def rotate(image, degrees):
    height, width = image.shape[:2]
    cos, sin = math.cos(degrees * math.pi / 180), math.sin(degrees * math.pi / 180)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    sx = cx + cos * (x - cx) - sin * (y - cy)
    sy = cy + sin * (x - cx) + cos * (y - cy)
    return round_half_up(sample(image, sx, sy))


def vary(image, variant):
    if "crop" in variant:
        x, y, w, h = variant["crop"]
        assert 0 <= x and 0 <= y and x + w <= image.shape[1] and y + h <= image.shape[0], variant
        image = np.ascontiguousarray(image[y : y + h, x : x + w])
    return rotate(image, variant["rotate"]) if "rotate" in variant else image


def digits(values, count):
    return [float(f"{value:.{count}g}") for value in values]


def golden(pipeline, photo, image, variant, size):
    face, embedding = pipeline.run(vary(image, variant), size)
    assert face.score > 0.6, (photo, variant, face.score)
    return {
        "photo": photo,
        "variant": variant,
        "detector_size": size,
        "bbox": digits(face.box, 7),
        "landmarks": [digits(point, 7) for point in face.landmarks],
        "score": digits([face.score], 7)[0],
        "embedding": digits(embedding, 7),
    }


def write(goldens):
    """One golden a line, so that a change shows as one line."""
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in goldens)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(f"[\n{lines}\n]\n")


# What another correct implementation may do otherwise, to see how much of the 0.001 it would use up.


def decode_with_pillow(path):
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def decode_with_plain_chroma(path):
    """As a decoder that repeats each colour sample (4:2:0) instead of interpolating."""
    ycc = cv2.cvtColor(reference.decode(path), cv2.COLOR_RGB2YCrCb)
    height, width = ycc.shape[:2]
    small = cv2.resize(ycc, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    ycc[..., 1:] = small.repeat(2, axis=0).repeat(2, axis=1)[:height, :width, 1:]
    return cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)


def fit_in_floats(image, size):
    """`fit` without OpenCV's fixed-point weights and without rounding to whole grey values."""
    rounded, scale = FIT(image, size)
    height, width = image.shape[:2]
    ratio = height / width
    new_width, new_height = (int(size / ratio), size) if ratio > 1.0 else (size, int(size * ratio))
    y, x = np.mgrid[0:new_height, 0:new_width].astype(np.float64)
    sx = ((x + 0.5) * width / new_width - 0.5).clip(0, width - 1)
    sy = ((y + 0.5) * height / new_height - 0.5).clip(0, height - 1)
    square = np.zeros(rounded.shape)
    square[:new_height, :new_width] = sample(image, sx, sy)
    return square, scale


def align_in_floats(image, landmarks):
    """`align` without OpenCV's 1/32 pixel steps and without rounding to whole grey values."""
    forward = reference.similarity(landmarks, reference.ARCFACE_POINTS)
    back = np.linalg.inv(np.vstack([forward, [0, 0, 1]]))
    y, x = np.mgrid[0 : reference.CROP_SIZE, 0 : reference.CROP_SIZE].astype(np.float64)
    return sample(image, back[0, 0] * x + back[0, 1] * y + back[0, 2], back[1, 0] * x + back[1, 1] * y + back[1, 2])


FIT, ALIGN, DECODE = reference.fit, reference.align, reference.decode
OTHERWISE = {
    "JPEG decoded by Pillow": {"decode": decode_with_pillow},
    "JPEG colour not interpolated": {"decode": decode_with_plain_chroma},
    "detector input scaled in floats": {"fit": fit_in_floats},
    "crop sampled in floats": {"align": align_in_floats},
    "both in floats": {"fit": fit_in_floats, "align": align_in_floats},
}


def worst_cosine(pipeline, goldens, change):
    reference.fit, reference.align = change.get("fit", FIT), change.get("align", ALIGN)
    decode, cosines = change.get("decode", DECODE), []
    for entry in goldens:
        image = vary(decode(PHOTOS / entry["photo"]), entry["variant"])
        _, embedding = pipeline.run(image, entry["detector_size"])
        cosines.append((float(embedding @ np.array(entry["embedding"])), entry))
    reference.fit, reference.align = FIT, ALIGN
    return min(cosines, key=lambda pair: pair[0])


def describe(entry):
    return f"{entry['photo']} {json.dumps(entry['variant'])} at {entry['detector_size']}"


def main():
    pipeline = reference.Pipeline()
    goldens = []
    for photo, variants in VARIANTS.items():
        image = reference.decode(PHOTOS / photo)
        cases = [(WHOLE, 320), (WHOLE, 640)] + [(variant, 320) for variant in variants]
        goldens += [golden(pipeline, photo, image, variant, size) for variant, size in cases]
    write(goldens)
    print(f"{TARGET}: {len(goldens)} goldens, {TARGET.stat().st_size} bytes\n")

    print("score and cosine with the golden of the whole photo at 640:")
    for entry in goldens:
        whole = next(g for g in goldens if g["photo"] == entry["photo"] and g["detector_size"] == 640)
        cosine = np.dot(entry["embedding"], whole["embedding"])
        print(f"  {entry['score']:.3f}  {cosine:.4f}  {describe(entry)}")
        assert cosine > 0.6, "not the same person"
    print("\nworst cosine with the goldens when one thing is done otherwise:")
    for name, change in OTHERWISE.items():
        cosine, entry = worst_cosine(pipeline, goldens, change)
        print(f"  {cosine:.6f}  {name}  ({describe(entry)})")


if __name__ == "__main__":
    main()
