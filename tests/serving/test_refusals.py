"""What a server refuses, and that everything refused is one line that says what to do."""

from __future__ import annotations

import functools
import http.server
import io
import json
import socket
import threading
from base64 import b64encode

import httpx
import pytest
import torch
from PIL import Image
from support import reward_server
from support.tasks import TWO_BLACK, tasks

from cgrpo.app.rewards import serve
from cgrpo.config import parse_config
from cgrpo.errors import UserError
from cgrpo.fingerprint import of_picture
from cgrpo.rewards import FunctionReward, scored

BATCH = tasks(prompts=["", ""])


def ones(pictures, batch):
    return [1.0] * len(pictures)


def twos(pictures, batch):
    return [2.0] * len(pictures)


def broken(pictures, batch):
    raise RuntimeError("out of order\nand more")


def short(pictures, batch):
    return [1.0]


def rewards(function=ones):
    return {"x": FunctionReward(function, "prompt")}


connect = functools.partial(reward_server.connect, patience=0)


def refused(*arguments, **settings) -> str:
    with pytest.raises(UserError) as error:
        connect(*arguments, **settings)(TWO_BLACK, BATCH)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_server_than_was_asked_for(serving):
    url = serving(rewards()).url
    assert "no reward 'y' there; it has x" in refused(url, "y")
    assert "measures prompt there, not identity; set its axis" in refused(url, axis="identity")
    assert "is checkpoint" in refused(url, checkpoint="0" * 64)
    assert connect(url)(TWO_BLACK, BATCH).tolist() == [1, 1]


def test_a_server_that_comes_back_with_another_checkpoint(serving):
    first = serving(rewards())
    remote = connect(first.url)
    first.stop()
    serving(rewards(twos), first.port)
    with pytest.raises(UserError, match=r"came back with checkpoint .* would mix"):
        remote(TWO_BLACK, BATCH)


def test_no_reward_server_at_all():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.split("/")[1]))
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for status in (200, 301, 404, 500):
            line = refused(f"http://127.0.0.1:{server.server_port}/{status}")
            assert f"no reward server answers there (status {status}: <html>hello</html>)" in line
        server.shutdown()


def test_a_reward_that_fails_is_never_a_score(serving, caplog):
    assert "mine" in refused(serving(rewards(broken)).url)
    with pytest.raises(UserError, match="reward 'x' failed: RuntimeError: out of order$"):
        connect(serving(rewards(broken)).url, on_failure="nan")(TWO_BLACK, BATCH)
    assert "returned scores of shape" in refused(serving(rewards(short)).url)


def test_token(serving, monkeypatch):
    running = serving(rewards(), token="secret ü")
    assert "token is missing or wrong; name the environment variable" in refused(running.url)
    monkeypatch.setenv("TOKEN", "secret")
    assert "token is missing or wrong" in refused(running.url, token_variable="TOKEN")
    monkeypatch.setenv("TOKEN", "")
    assert "TOKEN is not set" in refused(running.url, token_variable="TOKEN")
    answer = httpx.post(f"{running.url}/score", content=b"never read", headers={"authorization": "Bearer secret"})
    assert answer.status_code == 401
    monkeypatch.setenv("TOKEN", "secret ü\n")
    assert connect(running.url, token_variable="TOKEN")(TWO_BLACK, BATCH).tolist() == [1, 1]
    open_to_all = serving(rewards()).url
    assert all(httpx.get(f"{open_to_all}/{page}").status_code == 404 for page in ("docs", "redoc", "openapi.json"))


def test_the_body_is_limited_while_it_is_read(serving):
    running = serving(rewards(), max_body=1500)
    assert httpx.post(f"{running.url}/score", content=b"x" * 1501).status_code == 413
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as line:
        line.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2):  # and never the end
            line.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 413")
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    with pytest.raises(UserError, match="the server takes 1500; give it a larger --max-body"):
        connect(running.url)(images, BATCH)


def png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return b64encode(file.getvalue()).decode()


GREY = Image.new("RGB", (4, 4), (9, 9, 9))
GOOD = {
    "reward": "x",
    "pictures": [png(GREY)],
    "ids": ["0"],
    "prompts": [""],
    "subjects": [""],
    "references": [[of_picture(GREY)]],
    "masks": None,
    "sent": {of_picture(GREY): png(GREY)},
}


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({}, 200, ""),
        ({"reward": "y"}, 404, "no reward 'y' here; there is x"),
        ({"sent": {}}, 409, "send them"),
        ({"spec": 1}, 422, "spec: Extra inputs"),
        ({"prompts": ["", ""]}, 422, "1 pictures need as many"),
        ({"masks": [[]]}, 422, "each reference needs a mask"),
        ({"masks": [["../../secret"]]}, 422, "masks.0.0"),
        ({"pictures": []}, 422, "pictures: List should have at least 1"),
        ({"pictures": [png(GREY.convert("RGBA"))]}, 422, "mode RGBA"),
        ({"pictures": ["AAAA"]}, 422, "can't be read"),
        ({"pictures": [png(GREY)[:72]]}, 422, "can't be read"),
        ({"pictures": [png(GREY.resize((5, 4))), png(GREY)]}, 422, "several sizes"),
        ({"pictures": [png(Image.new("1", (16384, 16385)))]}, 422, "can't be read"),
        ({"sent": {of_picture(GREY): "AAAA"}}, 422, "can't be read"),
        ({"sent": {of_picture(GREY): png(GREY)[:72]}}, 422, "can't be read"),
        ({"sent": {of_picture(GREY): png(Image.new("RGB", (4, 4)))}}, 422, "not the picture that its key names"),
        ({"sent": {of_picture(GREY): png(GREY.convert("P"))}}, 422, "mode P"),
        ({"sent": {of_picture(GREY): png(Image.new("1", (16384, 16385)))}}, 422, "can't be read"),
    ],
)
def test_messages(serving, change, status, says):
    answer = httpx.post(f"{serving(rewards()).url}/score", content=json.dumps(GOOD | change))
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["scores"] == [1.0] and answer.json()["versions"]["torch"] == torch.__version__
    else:
        assert says in answer.json()["error"]
        assert answer.json()["missing"] == ([of_picture(GREY)] if status == 409 else [])


def test_health(serving):
    health = httpx.get(f"{serving(rewards()).url}/health").json()
    assert health["ready"] is True and set(health["rewards"]) == {"x"}
    assert health["rewards"]["x"]["axis"] == "prompt" and len(health["rewards"]["x"]["checkpoint"]) == 64
    assert {"customized-grpo", "torch", "transformers"} <= set(health["versions"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "others can reach this server: set a token"),
        ({"host": "::"}, "others can reach this server: set a token"),
        ({"host": socket.gethostname()}, "others can reach this server: set a token"),
        ({"host": "example.org"}, "others can reach this server: set a token"),
        ({"token_variable": "ABSENT"}, "ABSENT is not set"),
        ({"rewards": ["y"]}, "no reward 'y' in the recipe; it has identity, prompt"),
        ({"port": -1}, "can't listen"),
    ],
)
def test_serving(settings, says):
    with pytest.raises(UserError, match=says):
        serve(**settings)


def test_a_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="give another --host or"):
        serve(port=taken.getsockname()[1])


def test_an_address_is_no_secret_and_no_file():
    for url in ("file:///etc/passwd", "127.0.0.1:8420", "http://", "http://me:secret@host", "http://h/?token=secret"):
        with pytest.raises(UserError, match="rewards.prompt: url must be http"):
            parse_config({"rewards": {"prompt": {"type": "remote", "url": url, "reward": "x"}}}, "test")
    for url in ("http://h:99999", "http://h:abc", "http://[::1", "http://" + "a" * 70, "http://a..b", "http://h\0"):
        with pytest.raises(UserError, match="url must be http"):
            parse_config({"rewards": {"prompt": {"type": "remote", "url": url, "reward": "x"}}}, "test")
        with pytest.raises(UserError, match="base_url must start with"):
            judge = {"type": "vlm", "task": "prompt", "model": "m", "base_url": url}
            parse_config({"rewards": {"prompt": judge}}, "test")
    with pytest.raises(UserError, match="token_variable must be the name") as caught:
        wrong = {"type": "remote", "url": "http://h", "reward": "x", "token_variable": "my-secret"}
        parse_config({"rewards": {"prompt": wrong}}, "test")
    assert "my-secret" not in str(caught.value)


def test_scored_passes_a_remote_error_on_as_one_line(serving):
    with pytest.raises(UserError, match="^reward 'mine' at http.*: reward 'x' failed: RuntimeError: out of order$"):
        scored("mine", connect(serving(rewards(broken)).url), TWO_BLACK, BATCH)
