"""The reward of faces, on tiny ONNX models, against OpenCV's own calls."""

from __future__ import annotations

from itertools import permutations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.tasks import tasks
from support.tiny_faces import people, write_detector, write_recogniser

from cgrpo.app.main import main
from cgrpo.errors import UserError
from cgrpo.rewards import load_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.rewards.measures import CopyPaste


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    write_detector(folder / "detector.onnx")
    write_recogniser(folder / "recogniser.onnx")
    write_recogniser(folder / "log.onnx", "Log")
    (folder / "empty.onnx").touch()
    (folder / "words.onnx").write_text("no model " * 50)
    (folder / "cut.onnx").write_bytes((folder / "detector.onnx").read_bytes()[:300])
    (folder / "weights.safetensors").write_bytes(b"\0" * 16)
    (folder / "folder.onnx").mkdir()
    return folder


@pytest.fixture(scope="module")
def face(models):
    return load_reward("face", models / "recogniser.onnx", detector=str(models / "detector.onnx"))


def by_opencv(models, picture: Image.Image, centred: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Aligned faces and embeddings, left to right: detector and aligner, then the recogniser's network by itself."""
    pixels = np.ascontiguousarray(np.asarray(picture)[..., ::-1])
    detector = cv2.FaceDetectorYN.create(str(models / "detector.onnx"), "", picture.size)
    aligner = cv2.FaceRecognizerSF.create(str(models / "recogniser.onnx"), "")
    boxes = detector.detect(pixels)[1]
    aligned = [aligner.alignCrop(pixels, box) for box in sorted(boxes, key=lambda box: box[0])]
    network, embeddings = cv2.dnn.readNet(str(models / "recogniser.onnx")), []
    for one in aligned:
        scale, mean = (1 / 127.5, (127.5,) * 3) if centred else (1, (0, 0, 0))
        network.setInput(cv2.dnn.blobFromImage(one, scale, (112, 112), mean, swapRB=True))
        embeddings.append(network.forward()[0].copy())
    return aligned, embeddings


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("centred", [False, True])
def test_scores_are_those_of_opencvs_own_calls(models, centred):
    reward = load_reward("face", models / "recogniser.onnx", detector=str(models / "detector.onnx"), centred=centred)
    picture, references = people(1, 2, 3), [people(4), people(5)]
    made = by_opencv(models, picture, centred)[1]
    wanted = [by_opencv(models, one, centred)[1][0] for one in references]
    cosine_FR = np.array([[max(0, cosine(a, b)) for b in wanted] for a in made])
    best = max(cosine_FR[first, 0] + cosine_FR[second, 1] for first, second in permutations(range(3), 2)) / 2
    scores = reward(to_tensor([picture] * 2), tasks([references, references[:1]]))
    assert scores.tolist() == pytest.approx([best, cosine_FR[:, 0].max()], abs=1e-5)
    assert cosine_FR.std() > 1e-3


@pytest.mark.parametrize(
    ("shown", "wanted", "score"),
    [
        ([1], [1], 1),
        ([1, 2], [1, 2], 1),
        ([2, 1], [1, 2], 1),  # places play no part
        ([7, 2, 8, 1], [1, 2], 1),  # nor do bystanders
        ([None], [1], 0),
        ([None], [1, 2], 0),
        ([1], [1, 2], 0.5),  # one is missing
        ([1, None, 2], [1, 2, 3], 2 / 3),
        ([1, 1], [1, 1], 1),  # twins
    ],
)
def test_each_reference_needs_a_face_of_its_own(face, shown, wanted, score):
    references = [people(seed) for seed in wanted]
    assert face(to_tensor([people(*shown)]), tasks([references])).tolist() == pytest.approx([score], abs=1e-5)


def test_each_references_score_stands_alone(face):
    """What credit per subject is made of (weights.subjects); NaN beyond a task's last reference."""
    batch = tasks([[people(1), people(2)], [people(1)]])
    first, second = face.each(to_tensor([people(2)] * 2), batch)
    assert first.tolist() == pytest.approx([0, 1], abs=1e-5) and second.isnan().tolist() == [False, True]


def test_a_face_counts_once(face, models):
    """Of two copies of one person, one stands for the other, whom it resembles as far as strangers do."""
    stranger = max(0, cosine(by_opencv(models, people(1))[1][0], by_opencv(models, people(2))[1][0]))
    (doubled,) = face(to_tensor([people(1, 1)]), tasks([[people(1), people(2)]]))
    assert doubled == pytest.approx((1 + stranger) / 2, abs=1e-5) and stranger < 0.9


def test_what_cant_be_scored_is_nan_and_what_shows_no_face_is_not(models):
    reward = load_reward("face", models / "log.onnx", detector=str(models / "detector.onnx"))
    black = np.asarray(people(1)).copy()
    black[(black < 255).any(-1)] = 0  # logarithms of this are infinite
    pictures = [Image.fromarray(black), people(None), people(2), people(1)]
    scores = reward(to_tensor(pictures), tasks([[people(1)], [people(1)], [people(1)], []]))
    assert scores[[0, 3]].isnan().all() and scores[1] == 0 and scores[2].isfinite()
    assert reward.report()["no_face"] == pytest.approx(1 / 3) and not reward.report()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (150, 1), (1, 150), (33, 17)])
def test_pictures_of_any_shape_have_a_score(face, size):
    white = torch.full((2, *size, 3), 255, dtype=torch.uint8)
    assert face(white, tasks([[people(1)]] * 2)).isfinite().all()


def test_copies_of_a_face_show_in_the_report(face, models):
    face.report()
    face(to_tensor([people(1, 2), people(3, 1)]), tasks([[people(1), people(2)], [people(2), people(1)]]))
    aligned = {seed: to_tensor([Image.fromarray(by_opencv(models, people(seed))[0][0])]) for seed in (1, 2, 3)}
    of = [tasks([[Image.fromarray(aligned[seed][0].numpy())]]) for seed in (1, 2)]
    expected = [1, 1, CopyPaste()(aligned[3], of[1]).item(), 1]
    report = face.report()
    assert report == {"no_face": 0, "copy_paste": pytest.approx(np.mean(expected), abs=1e-2)}
    assert 0 < report["copy_paste"] < 1


def test_scoring_again_changes_no_bit(face):
    pictures, batch = to_tensor([people(1, 2)]), tasks([[people(3), people(4)]])
    first = face(pictures, batch)
    assert all(torch.equal(first, face(pictures, batch)) for _ in range(3))


def test_both_files_and_both_settings_are_in_the_fingerprint(face, models):
    names = (str(models / "recogniser.onnx"), str(models / "detector.onnx"))
    others = [
        load_reward("face", names[0], detector=names[1], centred=True),
        load_reward("face", names[0], detector=names[1], confidence=0.5),
        load_reward("face", models / "log.onnx", detector=names[1]),
    ]
    assert len({reward_fingerprint(one) for one in (face, *others)}) == 4
    assert reward_fingerprint(face) == reward_fingerprint(load_reward("face", names[0], detector=names[1]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"detector": "recogniser.onnx"}, "recogniser.onnx: not a face detector"),
        ({"detector": "empty.onnx"}, "empty.onnx: not a face detector"),
        ({"detector": "words.onnx"}, "words.onnx: not a face detector"),
        ({"detector": "cut.onnx"}, "cut.onnx: not a face detector"),
        ({"detector": "weights.safetensors"}, "weights.safetensors: not a face detector"),
        ({"detector": "folder.onnx"}, "folder.onnx: not a face detector"),
        ({"detector": "nowhere.onnx"}, "nowhere.onnx"),
        ({"detector": ""}, "no such file"),
        ({"path": "detector.onnx"}, "detector.onnx: not a face recogniser"),
        ({"path": "empty.onnx"}, "empty.onnx: not a face recogniser"),
        ({"path": "words.onnx"}, "words.onnx: not a face recogniser"),
        ({"path": "nowhere.onnx"}, "nowhere.onnx"),
        ({"confidence": 1.5}, "confidence"),
        ({"confidence": "high"}, "confidence"),
        ({"centred": "arcface"}, "centred"),
        ({"chunk": 4}, "chunk"),
        ({"references": [people(None)]}, "task 0: reference 1 shows no face"),
        ({"references": [people(1), people(1, 2)]}, "task 0: reference 2 shows 2 faces"),
        ({"references": [Image.new("L", (4, 4))]}, "task 0: reference 1 shows no face"),
        ({"references": [Image.new("RGB", (96, 96), "white")]}, r"task 0: reference 1 shows \d+ faces"),
    ],
)
def test_bad_input_is_one_line(models, settings, says):
    table = {"path": "recogniser.onnx", "detector": "detector.onnx", **settings}
    references = table.pop("references", [people(1)])
    places = {name: table[name] and str(models / table[name]) for name in ("path", "detector")}
    with pytest.raises(UserError, match=says) as error:
        load_reward("face", **table | places)(to_tensor([people(1)]), tasks([references]))
    assert "\n" not in str(error.value)


def test_without_opencv_a_line_says_what_to_install(models, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    monkeypatch.setattr("cgrpo.rewards.face.is_installed", lambda name: False)
    with pytest.raises(UserError, match="opencv-python-headless"):
        load_reward("face", models / "recogniser.onnx", detector=str(models / "detector.onnx"))


def test_the_command_scores_with_it(models, tmp_path, capsys):
    recipe = tmp_path / "faces.toml"
    recipe.write_text(
        f'extends = "toybox"\n[rewards.identity]\ntype = "face"\npath = "{models / "recogniser.onnx"}"\n'
        f'detector = "{models / "detector.onnx"}"\n'
    )
    for name, picture in {"same": people(1, 5), "none": people(None), "photo": people(1)}.items():
        picture.save(tmp_path / f"{name}.png")
    pictures = [str(tmp_path / f"{name}.png") for name in ("none", "same")]
    given = ["--reference", str(tmp_path / "photo.png"), "--prompt", "a man", "--reward", "identity"]
    assert main(["rewards", "score", *pictures, *given, "--recipe", str(recipe)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("same.png") < printed.index("none.png") and "1.0000" in printed and "0.0000" in printed
