"""ONNX models of a few lines that OpenCV takes for YuNet, SFace and ArcFace, and pictures with faces for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

WHITE = 8  # pixels: the detector takes a white block of the first grid for the middle of a face
FACE = 40  # pixels: the side of the box around it
OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # YuNet's, of each grid, and their widths
EYES_NOSE_MOUTH = [-0.5, -0.5, 1.5, -0.5, 0.5, 0.5, -0.3, 1.5, 1.3, 1.5]  # in cells from the cell's corner


def write_detector(path: Path, cell: int = WHITE, level: int = 230) -> Path:
    """A cell of 8 x 8 (or 16 or 32) pixels is a face if its mean is above ``level`` in red, green and blue."""
    constants = {
        "box": np.array([0.5, 0.5, np.log(FACE / WHITE), np.log(FACE / WHITE)], np.float32),
        "points": np.array(EYES_NOSE_MOUTH, np.float32),
        "rows": np.array([1, -1, 1]),
        "most": np.float32(-level),
        "ten": np.float32(0.04),
        "zero": np.float32(0),
    }
    nodes = []
    for side in (8, 16, 32):
        places = [
            ("AveragePool", ["input"], "mean", {"kernel_shape": [side, side], "strides": [side, side]}),
            ("ReduceMin", ["mean"], "darkest", {"axes": [1], "keepdims": 1}),
            ("Reshape", ["darkest", "rows"], "listed", {}),
            ("Add", ["listed", "most"], "above", {}),
            ("Relu", ["above"], "bright", {}),
            ("Mul", ["bright", "ten" if side == cell else "zero"], "cls", {}),
            ("Identity", ["cls"], "obj", {}),
            ("Mul", ["bright", "zero"], "none", {}),
            ("Add", ["none", "box"], "bbox", {}),
            ("Add", ["none", "points"], "kps", {}),
        ]
        shared = {"input", *constants}
        for kind, inputs, output, options in places:
            named = [name if name in shared else f"{name}_{side}" for name in inputs]
            nodes.append(helper.make_node(kind, named, [f"{output}_{side}"], name=f"{output}_{side}", **options))
    outputs = {f"{name}_{side}": [1, None, width] for name, width in OUTPUTS.items() for side in (8, 16, 32)}
    return _write(path, nodes, {"input": [1, 3, "h", "w"]}, outputs, constants)


def write_recogniser(path: Path, first: str = "Identity") -> Path:
    """16 numbers of an aligned face: ``first`` of its pixels, then random layers. "Log" of black is not finite."""
    draw = np.random.default_rng(0)
    constants = {
        "filters": (draw.standard_normal((4, 3, 28, 28)) / 3000).astype(np.float32),
        "mixing": draw.standard_normal((64, 16)).astype(np.float32),
    }
    places = [
        (first, ["data"], "pixels", {}),
        ("Conv", ["pixels", "filters"], "patches", {"strides": [28, 28]}),
        ("Flatten", ["patches"], "listed", {}),
        ("MatMul", ["listed", "mixing"], "fc1", {}),
    ]
    nodes = [helper.make_node(kind, inputs, [output], name=output, **more) for kind, inputs, output, more in places]
    return _write(path, nodes, {"data": [1, 3, 112, 112]}, {"fc1": [1, 16]}, constants)


def _write(
    path: Path, nodes: list[NodeProto], inputs: dict, outputs: dict, constants: dict[str, np.ndarray | np.generic]
) -> Path:
    def values(shapes: dict) -> list:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, values(inputs), values(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def people(*seeds: int) -> Image.Image:
    """A picture of 96 pixels' height with a face per person, from left to right: noise around a white block.

    ``seeds`` say who they are. None: there is no face at that place.
    """
    pixels = np.full((96, 96 * max(len(seeds), 1), 3), 60, np.uint8)
    for place, seed in enumerate(seeds):
        if seed is None:
            continue
        left = 96 * place + 16
        pixels[16:80, left : left + 64] = np.random.default_rng(seed).integers(1, 200, (64, 64, 3))
        pixels[40 : 40 + WHITE, left + 24 : left + 24 + WHITE] = 255
    return Image.fromarray(pixels)
