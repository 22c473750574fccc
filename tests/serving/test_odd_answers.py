"""Answers, addresses and environments that are none: one line each, and no secret in any."""

from __future__ import annotations

import http.server
import threading

import pytest
from support.reward_server import connect

from cgrpo.errors import UserError
from cgrpo.rewards.remote.client import Transport
from cgrpo.rewards.vlm import VlmSettings
from cgrpo.rewards.vlm.client import Endpoint


def refused(url: str) -> str:
    with pytest.raises(UserError) as error:
        connect(url, patience=0, token_variable="TOKEN")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTPS_PROXY", "odd://me:secret@host", "fix HTTPS_PROXY in the environment"),
        ("ALL_PROXY", "http://me:se#secret@host", "fix ALL_PROXY in the environment"),
        ("no_proxy", "[::1]", "fix NO_PROXY in the environment"),
        ("ALL_PROXY", "socks5://h:1", "socksio"),
        ("SSL_CERT_FILE", "/nowhere", "No such file"),
    ],
)
def test_an_environment_that_http_can_not_use(name, value, said, monkeypatch):
    """For the judge's client and ours; a proxy's password is in no message. One may read what the other can't."""
    monkeypatch.setenv(name, value)
    settings = VlmSettings(task="prompt", model="m")
    told = []
    for make in (lambda: Transport("reward 'x'", "http://h", "", 1, 0), lambda: Endpoint(settings, "key", set())):
        try:
            make()
        except UserError as error:
            told.append(str(error))
    assert told and all(said in line and "secret" not in line and "\n" not in line for line in told)


class Odd(http.server.BaseHTTPRequestHandler):
    """Answers that are none, by the path's first part."""

    def do_GET(self):
        token = self.headers.get("authorization", "")
        kind = self.path.split("/")[1]
        body = {
            "echo": f'{{"error": "you sent {token}"}}',
            "page": f"<p>{token}</p>",
            "keys": '{"ready": 1, "ready": 2',
        }
        self.send_response({"none": 204, "echo": 401, "away": 302}.get(kind, 200))
        if kind == "squeezed":
            self.send_header("content-encoding", "gzip")
        if kind == "away":
            self.send_header("location", "http://127.0.0.1:9/else")
        if kind == "cut":
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nab" if kind == "cut" else body.get(kind, "" if kind == "none" else "{}").encode())

    def log_message(self, *arguments):
        pass


def test_answers_that_are_none(monkeypatch, capsys):
    """Each is one line, and the token in none of them."""
    monkeypatch.setenv("TOKEN", "the-secret")
    said = {
        "echo": "you sent Bearer ***; name the environment variable",
        "page": "(status 200: <p>Bearer ***</p>)",
        "keys": "no reward server answers there",
        "none": "no reward server answers there (status 204",
        "away": "no reward server answers there (status 302",
        "squeezed": "set its url",
        "cut": "no answer for 0 s",
    }
    with http.server.HTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for kind, words in said.items():
            line = refused(f"http://127.0.0.1:{server.server_port}/{kind}")
            assert words in line and "the-secret" not in line
        server.shutdown()
    for token, words in (("the\nsecret", "odd characters"), ("", "is not set")):
        monkeypatch.setenv("TOKEN", token)
        assert words in refused("http://127.0.0.1:9")
    with pytest.raises(UserError, match="name of an environment variable") as caught:
        Transport("reward 'x'", "http://h", "the-secret", 1, 0)
    assert "the-secret" not in str(caught.value)
    assert "secret" not in capsys.readouterr().err
