"""A rater's way through the pages, and what strangers get."""

import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.studies import METHODS, gold_answers, small_study

from cgrpo.errors import UserError
from cgrpo.study.app.server import create_app
from cgrpo.study.create import LINKS
from cgrpo.study.database import DATABASE
from cgrpo.study.manifest import PICTURES, Study
from cgrpo.study.store import Store

Made = tuple[Study, Path, list[str]]
A = {"identity": "left", "prompt": "tie"}


@pytest.fixture
def browser(made: Made) -> Iterator[TestClient]:
    store = Store(made[1], wait=0.1)
    with TestClient(create_app(made[0], store), base_url="http://study.example.org") as client:
        yield client
    store.close()


def begin(browser: TestClient, study: Study, token: str) -> None:
    """Consent and pass the tutorial."""
    browser.post(f"/r/{token}/", data={"consent": "yes"})
    learn(browser, study, token, 1, True)


def learn(browser: TestClient, study: Study, token: str, attempt: int, right: bool) -> str:
    page = ""
    for position, item in enumerate(study.of_kind("tutorial"), 1):
        form = gold_answers(study, item, right=right) | {"attempt": str(attempt), "position": str(position)}
        page = browser.post(f"/r/{token}/tutorial", data=form).text
    return page


def test_the_whole_way(browser: TestClient, made: Made) -> None:
    study, folder, (_, token, *_) = made
    assert "I have read this" in browser.get(f"/r/{token}").text  # without its slash
    assert browser.get(f"/r/{token}/items/1").url.path == f"/r/{token}/"  # nothing before consent
    assert browser.post(f"/r/{token}/", data={}).status_code == 422
    assert browser.post(f"/r/{token}/", data={"consent": "yes"}).url.path == f"/r/{token}/tutorial"
    assert browser.get(f"/r/{token}/items/1").url.path == f"/r/{token}/tutorial"
    failed = learn(browser, study, token, 1, False)
    assert "Not yet: 0 of 5 right" in failed and "Try the tutorial again" in failed
    assert browser.get(f"/r/{token}/next").url.path == f"/r/{token}/tutorial"
    passed = learn(browser, study, token, 2, True)
    assert (
        "Passed: 5 of 5 right" in passed and "exactly the same picture" in browser.get(f"/r/{token}/tutorial/2/2").text
    )
    total = len(study.lists[0])
    for number in range(1, total + 1):
        page = browser.get(f"/r/{token}/next")
        assert page.url.path == f"/r/{token}/items/{number}"
        assert f"{number - 1} answered" in page.text
        browser.post(page.url.path, data=A | {"revision": "0"})
    end = browser.get(f"/r/{token}/next")
    assert f"All {total} pages are answered" in end.text
    page = browser.get(f"/r/{token}/items/3")
    assert 'name="revision" value="1"' in page.text and 'value="left" data-key="a" checked' in page.text
    browser.post(f"/r/{token}/items/3", data={"identity": "right", "prompt": "tie", "revision": "1"})
    store = Store(folder)
    item = study.lists[0][2].item
    assert store.answers(1, item) == ({"identity": "right", "prompt": "tie"}, 2)
    assert all(one.shown_at for one in store.responses())
    store.close()


def test_sides_are_shown_as_planned(browser: TestClient, made: Made) -> None:
    study, _, (_, token, *_) = made
    begin(browser, study, token)
    items, sides = study.by_id(), set()
    for number, (item, first_on_left) in enumerate(study.lists[0], 1):
        text = browser.get(f"/r/{token}/items/{number}").text
        left, right = re.findall(r'pictures/(\w+)\.png" alt="Picture [AB]"', text)
        assert (left, right) == (items[item].pictures if first_on_left else items[item].pictures[::-1])
        sides.add(first_on_left)
    assert sides == {True, False}


def test_incomplete_forged_and_stale_forms(browser: TestClient, made: Made) -> None:
    study, folder, (_, token, *_) = made
    begin(browser, study, token)
    url = f"/r/{token}/items/1"
    page = browser.post(url, data={"identity": "right", "revision": "0"})
    assert page.status_code == 422 and 'value="right" data-key="b" checked' in page.text and "answer every" in page.text
    for forged in ({"identity": "both"}, {"prompt": "5"}, {"identity": "", "method": "x"}):
        assert browser.post(url, data=A | forged | {"revision": "0"}).status_code == 422
    for _ in range(2):  # sent twice
        assert browser.post(url, data=A | {"revision": "0"}).url.path == f"/r/{token}/items/2"
    late = browser.post(url, data={"identity": "right", "prompt": "right", "revision": "0"})
    assert late.status_code == 409 and 'name="revision" value="1"' in late.text and "another page" in late.text
    store = Store(folder)
    assert len(store.responses()) == 2
    store.close()
    assert browser.post(f"/r/{token}/items/999", data=A | {"revision": "0"}).status_code == 404
    assert browser.post(url, data=A | {"revision": "\N{FULLWIDTH DIGIT NINE}" * 30}).status_code in (200, 409)


def test_an_old_tutorial_form_counts_once(browser: TestClient, made: Made) -> None:
    study, _, (_, token, *_) = made
    browser.post(f"/r/{token}/", data={"consent": "yes"})
    first = study.of_kind("tutorial")[0]
    wrong = gold_answers(study, first, right=False) | {"attempt": "1", "position": "1"}
    right = gold_answers(study, first) | {"attempt": "1", "position": "1"}
    assert "not what we expect" in browser.post(f"/r/{token}/tutorial", data=wrong).text
    assert "not what we expect" in browser.post(f"/r/{token}/tutorial", data=right).text  # a second try at it
    assert browser.post(f"/r/{token}/tutorial", data=right | {"position": "4"}).url.path == f"/r/{token}/tutorial"
    assert browser.get(f"/r/{token}/tutorial/1/3").status_code == 404


def test_strangers_get_one_page_whatever_they_ask(browser: TestClient, made: Made) -> None:
    study, _, (admin, mine, other, *_) = made
    begin(browser, study, mine)
    items = study.by_id()
    own = {shown.item for shown in study.lists[0]}
    foreign = next(items[shown.item].pictures[0] for shown in study.lists[1] if shown.item not in own)
    assert browser.get(f"/r/{other}/pictures/{foreign}.png").status_code == 200
    tried = [
        "/r/nobody/",
        "/r/nobody/items/1",
        f"/r/{mine[:-1]}/",
        f"/r/{mine}/pictures/{foreign}.png",  # another rater's
        f"/r/{mine}/pictures/..%2f..%2fstudy.json",
        f"/r/{mine}/pictures/..%2fstudy.json.png",
        f"/r/{mine}/pictures/%2e%2e/%2e%2e/study.json",
        f"/r/{mine}/items/-1",
        f"/r/{mine}/items/0",
        f"/r/{admin}/",
        f"/admin/{mine}/",
        "/admin/x/answers.csv",
        "/study.json",
        "/docs",
        "/openapi.json",
        "/",
    ]
    found = {browser.get(path).text for path in tried}
    assert len(found) == 1 and "There is nothing here" in found.pop()
    assert {browser.get(path).status_code for path in tried} == {404}
    assert browser.put(f"/r/{mine}/items/1").status_code == 404


def test_other_sites_big_bodies_and_strange_forms(browser: TestClient, made: Made) -> None:
    study, folder, (_, token, *_) = made
    begin(browser, study, token)
    url = f"/r/{token}/items/1"
    form = A | {"revision": "0"}
    assert browser.post(url, data=form, headers={"origin": "http://evil.example"}).status_code == 403
    assert browser.post(url, data=form, headers={"origin": "null"}).status_code == 403
    assert browser.post(url, data=form, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert browser.post(url, content=b"x" * 10_000_000).status_code == 413
    assert browser.post(url, content=iter([b"x" * 1000] * 20)).status_code == 413  # no length said
    assert browser.post(url, content=b"\xff\xfe=1").status_code == 400
    assert browser.post(url, content=b"a&" * 400).status_code == 400
    store = Store(folder)
    assert not store.responses()
    store.close()
    same = {"origin": "http://study.example.org", "sec-fetch-site": "same-origin"}
    assert browser.post(url, data=form, headers=same).status_code == 200


def test_hostile_addresses_and_headers_are_no_fault_of_ours(browser: TestClient, made: Made) -> None:
    """Each would be an exception of Python's or of the database's."""
    study, folder, (_, token, *_) = made
    begin(browser, study, token)
    for number in ("9" * 30, "9" * 5000, "-1", "\u0663", "x"):
        for page in (f"items/{number}", f"tutorial/{number}/1", f"tutorial/1/{number}"):
            assert browser.get(f"/r/{token}/{page}").status_code == 404
        assert browser.post(f"/r/{token}/items/{number}", data=A).status_code == 404
    for name, value in (("origin", "http://[::1"), ("content-length", b"\xb2")):
        headers = {name: value.encode() if isinstance(value, str) else value}
        assert browser.post(f"/r/{token}/", content=b"consent=yes", headers=headers).status_code in (403, 413)
    name = study.of_kind("tutorial")[0].pictures[0]
    (folder / PICTURES / f"{name}.png").unlink()
    assert browser.get(f"/r/{token}/pictures/{name}.png").status_code == 404
    assert browser.get(f"/r/{token}/items/1").status_code == 200


def test_no_method_no_file_and_no_script_reaches_the_browser(browser: TestClient, made: Made) -> None:
    study, _, (admin, token, *_) = made
    begin(browser, study, token)
    paths = [f"/r/{token}/", f"/r/{token}/tutorial/1/1", f"/r/{token}/done", f"/admin/{admin}/"]
    paths += [f"/r/{token}/items/{n}" for n in range(1, len(study.lists[0]) + 1)] + ["/style.css", "/keys.js"]
    paths += [f"/admin/{admin}/answers.csv"]
    browser.post(f"/r/{token}/items/1", data=A | {"revision": "0"})
    for path in paths:
        page = browser.get(path)
        told = page.text + str(page.headers)
        for secret in (*METHODS, "toy0", ".partial", str(study.source["scores"])):
            assert secret not in told, (path, secret)
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "same-origin"
    assert "<b>beach</b>" not in page.text
    assert "&lt;b&gt;beach&lt;/b&gt; &amp; more" in browser.get(f"/r/{token}/items/1").text


def test_the_two_pictures_of_a_page_have_the_same_headers(browser: TestClient, made: Made) -> None:
    study, _, (_, token, *_) = made
    begin(browser, study, token)
    for item in [study.by_id()[shown.item] for shown in study.lists[0]]:
        pair = [browser.get(f"/r/{token}/{PICTURES}/{name}.png") for name in item.pictures]
        assert all(one.status_code == 200 for one in pair)
        assert dict(pair[0].headers) == dict(pair[1].headers)


def test_what_was_chosen_stays_when_it_cant_be_saved(browser: TestClient, made: Made) -> None:
    study, folder, (_, token, *_) = made
    begin(browser, study, token)
    other = sqlite3.connect(folder / DATABASE, isolation_level=None)
    other.execute("begin immediate")
    url = f"/r/{token}/items/1"
    assert browser.get(url).status_code == 200  # reading goes on
    page = browser.post(url, data={"identity": "right", "prompt": "tie", "revision": "0"})
    assert page.status_code == 503 and "still here" in page.text
    assert 'value="right" data-key="b" checked' in page.text and 'value="tie" data-key="t" checked' in page.text
    assert browser.post(f"/r/{made[2][2]}/", data={"consent": "yes"}).status_code == 503
    other.execute("rollback")
    assert browser.post(url, data=A | {"revision": "0"}).url.path == f"/r/{token}/items/2"


def test_the_administrators_page(browser: TestClient, made: Made) -> None:
    study, _, (admin, *raters) = made
    for token in raters:
        begin(browser, study, token)
        for number in range(1, len(study.lists[0]) + 1):
            browser.get(f"/r/{token}/items/{number}")
            browser.post(f"/r/{token}/items/{number}", data=A | {"revision": "0"})
    page = browser.get(f"/admin/{admin}/").text
    assert "32 of 32 pages answered" in page and "link 4" in page and "8 of 8" in page and page.count("finished") == 4
    assert re.search(r"<dt>identity</dt><dd>-?\d\.\d{3}</dd>", page)
    lines = browser.get(f"/admin/{admin}/answers.csv").text.splitlines()
    assert len(lines) == 1 + 64 and lines[0].startswith("rater,item,question,choice")


def test_ratings_have_their_own_scale(scores: Path, tmp_path: Path) -> None:
    study, (_, token, *_) = small_study(scores, tmp_path / "study", mode="rating", methods=METHODS[:1])
    store = Store(tmp_path / "study")
    with TestClient(create_app(study, store)) as browser:
        begin(browser, study, token)
        text = browser.get(f"/r/{token}/items/1").text
        assert text.count('type="radio"') == 12 and "0 to 5" in text and text.count('alt="Picture"') == 1
        assert browser.post(f"/r/{token}/items/1", data={"identity": "6", "prompt": "1"}).status_code == 422
        browser.post(f"/r/{token}/items/1", data={"identity": "5", "prompt": "0", "revision": "0"})
    assert {one.choice for one in store.responses()} == {"5", "0"}
    store.close()


def test_one_server_at_the_links_port_and_only_whole_studies(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from cgrpo import serving
    from cgrpo.app import study as command

    def second(*_: object) -> None:
        with pytest.raises(UserError, match="is served already"):
            command.serve(made[1], port=0)

    ports = []
    listen = serving.listen

    def noted(host: str, port: int) -> socket.socket:
        ports.append((bound := listen(host, port)).getsockname()[1])
        return bound

    monkeypatch.setattr(serving, "run", second)
    monkeypatch.setattr(serving, "listen", noted)
    command.serve(made[1], port=0)
    links = (made[1] / LINKS).read_text()
    assert links.count(f"http://127.0.0.1:{ports[0]}/") == len(links.splitlines()) == len(made[2])
    next((made[1] / PICTURES).iterdir()).write_bytes(b"other")
    with pytest.raises(UserError, match="is not as it was when the study was made; restore 1"):
        command.serve(made[1], port=0)
