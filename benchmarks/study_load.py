"""Many raters at once, and a server that is killed under them: is an answer lost, or kept twice?

    python benchmarks/study_load.py --out /tmp/load                  # 16 raters, 3,200 answers, killed twice

Draws pictures, makes a study, and serves it on this machine alone. Each rater is a thread that goes through consent,
tutorial and items as a browser does, and sends a form again when the connection breaks. Every redirect after a form is
an acknowledgement; at the end the database must hold what was acknowledged, once.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from cgrpo.scores import ScoreRow, write_scores
from cgrpo.study.create import LINKS, StudyRequest, create_study
from cgrpo.study.database import DATABASE
from cgrpo.study.manifest import Study

SUBJECTS = 20
RETRIES = 400  # of a request, a quarter of a second apart


def draw(out: Path, prompts: int) -> Path:
    """What ``cgrpo evaluate`` would have written."""
    rng, rows = np.random.default_rng(0), []

    def picture(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(file)

    for s in range(SUBJECTS):
        picture(out / "data" / f"s{s}.png")
        for p in range(prompts):
            for method in ("one", "other"):
                name = f"s{s}/{p}.png"
                picture(out / method / name)
                rows.append(ScoreRow(method, f"s{s}", p, f"a thing {p}", 0, "m", "one", 0.0, name, None))
    write_scores(out, rows)
    references = {f"s{s}": [f"s{s}.png"] for s in range(SUBJECTS)}
    about = {"benchmark": "load", "data": "data", "references": references, "methods": {"one": "one", "other": "other"}}
    (out / "benchmark.json").write_text(json.dumps(about), encoding="utf-8")
    return out


class Rater(threading.Thread):
    """Answers everything; ``acknowledged`` has the answers by item's number, ``seconds`` what a page took."""

    def __init__(self, port: int, token: str, study: Study, number: int):
        super().__init__(daemon=True)
        self.port, self.token, self.study, self.number = port, token, study, number
        self.acknowledged: dict[int, dict[str, str]] = {}
        self.seconds: list[float] = []
        self.broken = 0
        self.connection: http.client.HTTPConnection | None = None
        self.rng = np.random.default_rng(number)

    def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Status, where to, page; again and again until there is an answer."""
        for _ in range(RETRIES):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                body = None if form is None else urlencode(form)
                kind = {"content-type": "application/x-www-form-urlencoded"} if form is not None else {}
                self.connection.request("GET" if form is None else "POST", f"/r/{self.token}/{path}", body, kind)
                response = self.connection.getresponse()
                text = response.read().decode("utf-8", "replace")
                if response.status == 503:  # the database was busy
                    raise OSError("busy")
                return response.status, response.getheader("location", ""), text
            except (OSError, http.client.HTTPException):
                self.broken += 1
                if self.connection is not None:
                    self.connection.close()
                self.connection = None
                time.sleep(0.25)
        raise SystemExit(f"rater {self.number}: no answer for {RETRIES // 4} s")

    def run(self) -> None:
        self.ask("", {"consent": "yes"})
        for position, item in enumerate(self.study.of_kind("tutorial"), 1):
            form = {"identity": "tie", "prompt": "tie"}
            for question in form:
                right = [c for c in ("left", "tie", "right") if item.is_right(question, c, True)]
                form[question] = right[0] if right else "tie"
            self.ask("tutorial", form | {"attempt": "1", "position": str(position)})
        for number in range(1, len(self.study.lists[self.number - 1]) + 1):
            start = time.perf_counter()
            _, _, page = self.ask(f"items/{number}")
            found = re.search(r'name="revision" value="(\d+)"', page)
            form = {q: str(self.rng.choice(["left", "tie", "right"])) for q in ("identity", "prompt")}
            status, _, _ = self.ask(f"items/{number}", form | {"revision": found[1] if found else "0"})
            if status == 303:
                self.acknowledged[number] = form
            self.seconds.append(time.perf_counter() - start)


def serve(folder: Path, port: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "cgrpo", "study", "serve", str(folder), "--port", str(port)]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    server.stderr.readline()  # "serving ..."
    return server


def audit(folder: Path, study: Study, raters: list[Rater]) -> Counter[str]:
    """Acknowledged answers that are lost or otherwise, answers kept twice, and answers that nobody was told of."""
    rows = (
        sqlite3.connect(folder / DATABASE)
        .execute("select rater, item, question, choice, superseded_at is null from response")
        .fetchall()
    )
    live = Counter((rater, item, question) for rater, item, question, _, is_live in rows if is_live)
    kept = {(rater, item, question): choice for rater, item, question, choice, is_live in rows if is_live}
    told = {
        (rater.number, study.lists[rater.number - 1][number - 1].item, question): choice
        for rater in raters
        for number, form in rater.acknowledged.items()
        for question, choice in form.items()
    }
    found: Counter[str] = Counter(acknowledged=len(told), rows=len(rows))
    found["lost"] = sum(key not in kept for key in told)
    found["other"] = sum(key in kept and kept[key] != choice for key, choice in told.items())
    found["doubled"] = sum(count > 1 for count in live.values()) + sum(not is_live for *_, is_live in rows)
    found["unacknowledged"] = sum(key not in told for key in kept)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--raters", type=int, default=16)
    options.add_argument("--pages", type=int, default=100, help="a rater's")
    options.add_argument("--kills", type=int, default=2)
    options.add_argument("--port", type=int, default=8432)
    ask = options.parse_args()
    shutil.rmtree(ask.out, ignore_errors=True)
    items = ask.raters * ask.pages // 4
    scores, folder = draw(ask.out / "scores", -(-items // SUBJECTS)), ask.out / "study"
    study = create_study(scores, folder, StudyRequest(items=items, raters=ask.raters, per_item=4, checks=0))
    tokens = re.findall(r"/r/(\w+)/", (folder / LINKS).read_text(encoding="utf-8"))
    raters = [Rater(ask.port, token, study, number) for number, token in enumerate(tokens, 1)]
    server, start, kills = serve(folder, ask.port), time.perf_counter(), 0
    for rater in raters:
        rater.start()
    total = sum(map(len, study.lists))
    while any(rater.is_alive() for rater in raters):
        done = sum(len(rater.acknowledged) for rater in raters)
        if kills < ask.kills and done > total * (kills + 1) / (ask.kills + 1):
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            kills += 1
            print(f"killed after {done} of {total} pages", flush=True)
            server = serve(folder, ask.port)
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    server.terminate()
    server.wait()
    pages = np.sort([second for rater in raters for second in rater.seconds])
    found = audit(folder, study, raters)
    print(
        f"{len(raters)} raters, {found['acknowledged']} answers acknowledged in {seconds:.0f} s, {kills} kills, "
        f"{sum(rater.broken for rater in raters)} requests sent again\n"
        f"lost {found['lost']}, otherwise {found['other']}, doubled {found['doubled']}, "
        f"kept unacknowledged {found['unacknowledged']}\n"
        f"a page (shown and saved): median {1000 * pages[len(pages) // 2]:.0f} ms, "
        f"95 % below {1000 * pages[int(0.95 * len(pages))]:.0f} ms"
    )
    raise SystemExit(found["lost"] + found["other"] + found["doubled"] > 0)


if __name__ == "__main__":
    main()
