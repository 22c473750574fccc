"""The page of `cgrpo demo`, driven over HTTP; the toy world's policy draws."""

import base64
import io

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from cgrpo import serving
from cgrpo.app.main import main
from cgrpo.errors import UserError
from cgrpo.serving.demo import Example, create_demo

RED = Image.new("RGB", (8, 8), "red")


def address(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def picture(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def ask(client: TestClient, **request):
    return client.post("/pictures", json={"prompt": "a toy", "references": [], **request})


def test_the_command_draws_what_sample_draws(monkeypatch, tmp_path):
    """The pictures are those of `sample`, bit for bit."""
    apps = []
    monkeypatch.setattr(serving, "run", lambda app, bound, host, what: (apps.append(app), bound.close()))
    steps = ("--set", "sampling.steps=2")
    (tmp_path / "ref.png").write_bytes(base64.b64decode(address(RED).partition(",")[2]))
    assert main(["demo", *steps, "--port", "0"]) == 0
    client = TestClient(apps.pop())
    page = client.get("/").text
    assert page.count("data-example=") == 4 and "<title>cgrpo demo: toybox</title>" in page
    drawn = ask(client, prompt="a toy in the snow", references=[address(RED)], seed=3, count=2).json()["rows"]
    words = ["sample", "--reference", str(tmp_path / "ref.png"), "--prompt", "a toy in the snow", *steps]
    assert main([*words, "--seed", "3", "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
    [(name, addresses)] = drawn
    assert name == "base"
    for number, one in enumerate(addresses):
        assert picture(one).tobytes() == Image.open(tmp_path / "out" / f"prompt0-seed{3 + number}.png").tobytes()


def fake(prompt, references, seeds):
    if prompt == "unknown":
        raise UserError("unknown word")
    return {name: [Image.new("RGB", (4, 4), (seed, len(references), 0)) for seed in seeds] for name in ("base", "new")}


def test_rows_hold_a_picture_per_seed():
    client = TestClient(create_demo("<b>", fake, [Example("red & round", [RED])]))
    assert "&lt;b&gt;" in client.get("/").text and "red &amp; round" in client.get("/").text
    rows = dict(ask(client, references=[address(RED)], seed=5, count=3).json()["rows"])
    assert list(rows) == ["base", "new"]
    assert [picture(one).getpixel((0, 0)) for one in rows["new"]] == [(5, 1, 0), (6, 1, 0), (7, 1, 0)]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"prompt": " "}, 400, "the prompt is empty"),
        ({"prompt": "unknown"}, 400, "unknown word"),
        ({"references": ["data:image/png;base64,AAAA"]}, 400, "reference 1: can't be read as a picture"),
        ({"references": [address(RED), "no base64"]}, 400, "reference 2: no picture file"),
        ({"count": 9}, 422, "less than or equal to 8"),
        ({"seed": -1}, 422, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_drawn_is_said(request_, status, words):
    answer = ask(TestClient(create_demo("demo", fake, [])), **request_)
    assert answer.status_code == status and words in answer.text
