"""The whole pipeline once more, from photo to vector, as a reference for the Rust one.

Written apart from the Rust code, on other libraries (OpenCV, NumPy, the plain ONNX Runtime on one CPU
thread in f32), so that a mistake has to be made twice to go unseen. It says what is right; it is not
meant to be fast.

    python tests/reference/pipeline.py [--detector-size 640] PHOTO...

Conventions: images are uint8 arrays [height, width, 3] in RGB. Points are (x, y) in pixels, where the
centre of the top left pixel is (0, 0). A box is (x1, y1, x2, y2).
"""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("ASSENT_MODELS_DIR", REPOSITORY / "models"))

DETECTOR_SIZE = 320
# What the detector runs on. A photo goes first into the least of them that holds it as it is, and that is all
# where the eyes of the chosen face are so many of its pixels apart; else into the size asked for.
DETECTOR_SIZES = (256, 320, 640)
LARGE_FACE = 24.0
STRIDES = (8, 16, 32)
ANCHORS_PER_CELL = 2
SCORE_THRESHOLD = 0.5
NMS_IOU = 0.4

CROP_SIZE = 112
# Where ArcFace was trained to find the eyes, the nose and the corners of the mouth in its 112x112 input;
# left is the left of the image.
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


@dataclass
class Face:
    """One detected face, in pixels of the photo."""

    box: np.ndarray  # [4]
    landmarks: np.ndarray  # [5, 2]
    score: float


def decode(path):
    """The photo's pixels, turned upright as its EXIF orientation says."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{path}: not an image")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def fit(image, size):
    """The image scaled, larger or smaller, into the top left of a black square; and the scale.

    The longer side becomes `size`, the other is truncated to whole pixels, so that the two axes are scaled
    by slightly different factors; boxes are scaled back by the vertical one alone, as SCRFD is used
    everywhere. Bilinear with half-pixel centres and no smoothing before shrinking.
    """
    height, width = image.shape[:2]
    ratio = height / width
    if ratio > 1.0:
        new_width, new_height = int(size / ratio), size
    else:
        new_width, new_height = size, int(size * ratio)
    square = np.zeros((size, size, 3), np.uint8)
    square[:new_height, :new_width] = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    return square, new_height / height


def tensor(image, mean, std):
    """[1, 3, height, width] in f32, RGB, normalised."""
    return ((image.astype(np.float32) - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)[None]


def decode_stride(scores, distances, offsets, size, stride):
    """The boxes, landmarks and scores above the threshold on one stride, in pixels of the square.

    Cells run row by row with their anchors side by side. Both anchors of a cell stand on its top left
    corner; distances (left, top, right, bottom) and offsets (x, y of five points) are in strides.
    """
    cells = size // stride
    rows, columns = np.divmod(np.arange(cells * cells), cells)
    corners = np.repeat(np.stack([columns, rows], axis=1), ANCHORS_PER_CELL, axis=0) * float(stride)
    kept = scores >= SCORE_THRESHOLD
    corners, scores = corners[kept], scores[kept].astype(np.float64)
    distances = distances[kept].astype(np.float64) * stride
    offsets = offsets[kept].astype(np.float64).reshape(-1, 5, 2) * stride
    boxes = np.hstack([corners - distances[:, :2], corners + distances[:, 2:]])
    return boxes, corners[:, None] + offsets, scores


def intersection_over_union(box, others):
    """Of one box with each of the others; boxes are continuous (no extra pixel)."""
    overlap = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(overlap, 0.0), axis=1)
    area = np.prod(box[2:] - box[:2])
    return shared / (area + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared)


def suppress(boxes, scores):
    """Indices of the boxes kept by non-maximum suppression, best first."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[intersection_over_union(boxes[best], boxes[order]) <= NMS_IOU]
    return kept


def choose(faces, image):
    """The large face near the centre: area less twice the squared distance of its centre from the image's."""
    height, width = image.shape[:2]

    def worth(face):
        x1, y1, x2, y2 = face.box
        off_x, off_y = (x1 + x2) / 2 - width / 2, (y1 + y2) / 2 - height / 2
        return (x2 - x1) * (y2 - y1) - 2.0 * (off_x**2 + off_y**2)

    return max(faces, key=worth)


def similarity(source, target):
    """The 2x3 similarity transform (turn, scale, shift) that brings source nearest to target.

    Least squares, after Umeyama, PAMI 13(4), 1991, equations 39 to 42.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    covariance = target_centred.T @ source_centred / len(source)
    u, singular, vt = np.linalg.svd(covariance)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (singular * sign).sum() / source_centred.var(axis=0).sum()
    shift = target_mean - scale * rotation @ source_mean
    return np.hstack([scale * rotation, shift[:, None]])


def align(image, landmarks):
    """The 112x112 crop that the recogniser expects: bilinear, black outside the photo."""
    return cv2.warpAffine(
        image,
        similarity(landmarks, ARCFACE_POINTS),
        (CROP_SIZE, CROP_SIZE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )


def session(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the recogniser's graph claims batch 1 and warns about every other
    path = MODELS / "research" / name
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Pipeline:
    def __init__(self):
        self.detector = session("scrfd_500m_bnkps.onnx")
        self.recogniser = session("w600k_mbf.onnx")

    def detect(self, image, size=DETECTOR_SIZE):
        """All faces, best score first."""
        least = min([side for side in DETECTOR_SIZES if max(image.shape[:2]) <= side < size], default=size)
        if least < size:
            faces = self.detect_at(image, least)
            if faces:
                points = choose(faces, image).landmarks * fit(image, least)[1]
                if np.linalg.norm(points[0] - points[1]) >= LARGE_FACE:
                    return faces
        return self.detect_at(image, size)

    def detect_at(self, image, size):
        square, scale = fit(image, size)
        outputs = self.detector.run(None, {"input.1": tensor(square, 127.5, 128.0)})
        # Nine outputs: scores, distances and offsets, each on strides 8, 16 and 32; [1, anchors, 1 | 4 | 10].
        scores, distances, offsets = outputs[0:3], outputs[3:6], outputs[6:9]
        parts = [
            decode_stride(scores[i][0, :, 0], distances[i][0], offsets[i][0], size, stride)
            for i, stride in enumerate(STRIDES)
        ]
        boxes, landmarks, scores = (np.concatenate(column) for column in zip(*parts))
        return [
            Face(boxes[i] / scale, landmarks[i] / scale, float(scores[i])) for i in suppress(boxes, scores)
        ]

    def embed(self, crop):
        """The unit vector [512] in f32 of an aligned crop."""
        raw = self.recogniser.run(None, {"input.1": tensor(crop, 127.5, 127.5)})[0][0]
        return raw / np.linalg.norm(raw)

    def run(self, image, size=DETECTOR_SIZE):
        """The chosen face and its embedding; None where there is no face."""
        faces = self.detect(image, size)
        if not faces:
            return None
        face = choose(faces, image)
        return face, self.embed(align(image, face.landmarks))


def main():
    parser = argparse.ArgumentParser(description="Print the chosen face and its embedding as JSON lines.")
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--detector-size", type=int, default=DETECTOR_SIZE, choices=(320, 640))
    arguments = parser.parse_args()
    pipeline = Pipeline()
    for photo in arguments.photos:
        found = pipeline.run(decode(photo), arguments.detector_size)
        line = {"photo": photo, "face": None}
        if found:
            face, embedding = found
            line["face"] = {"bbox": face.box.tolist(), "landmarks": face.landmarks.tolist(), "score": face.score}
            line["embedding"] = embedding.tolist()
        print(json.dumps(line))


if __name__ == "__main__":
    main()
