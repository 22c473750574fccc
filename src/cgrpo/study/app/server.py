"""The study over HTTP. A rater is whoever has the link; every page is a form or a text, and none needs a script."""

import logging
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BeforeValidator
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from cgrpo.study.app.pages import Refused, add_headers, page, read_form, shown, static
from cgrpo.study.app.progress import Course, Lesson, answers_csv, progress
from cgrpo.study.database import Unavailable
from cgrpo.study.manifest import PICTURES, Study
from cgrpo.study.store import Rater, Stale, Store


def _whole(text: str | None) -> int:
    """0 for what is no number, or one that nothing here is counted to."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0


Form = Annotated[dict[str, str], Depends(read_form)]
Number = Annotated[int, BeforeValidator(_whole)]
log = logging.getLogger("uvicorn.error")
CHOOSE = "Please answer every question; what you chose is still here."


class NotHere(Exception):
    """Whatever is asked for and isn't this rater's: one page for all of it, which tells nothing."""


def create_app(study: Study, store: Store) -> FastAPI:
    """The application; ``store`` is its only writer."""
    app = FastAPI(openapi_url=None)  # no pages that describe it
    app.middleware("http")(add_headers)
    course = Course(study, store)
    _add_refusals(app)
    _add_files(app, course)
    _add_start(app, course)
    _add_tutorial(app, course)
    _add_items(app, course)
    _add_administration(app, course)
    return app


def _known(course: Course, token: str) -> Rater:
    rater = course.store.rater(token)
    if rater is None:
        raise NotHere
    return rater


def _to(token: str, where: str) -> RedirectResponse:
    return RedirectResponse(f"/r/{token}/{where}", 303)


def _add_refusals(app: FastAPI) -> None:
    def not_here(request: Request, _: Exception) -> Response:
        return page("message", 404, title="There is nothing here", words="Please check the link that you were sent.")

    def refused(request: Request, error: Refused) -> Response:
        response = page("message", error.status, title="Not taken", words=error.words)
        response.headers["connection"] = "close"  # the rest of it is not read
        return response

    def unavailable(request: Request, error: Unavailable) -> Response:
        log.error("study: %s", error)
        words = f"Sorry: {error}. Go back: what you chose is still in the form. Then send it again in a minute."
        return page("message", 503, title="Not saved", words=words)

    handlers: dict[type[Exception], Callable[..., Response]] = {
        NotHere: not_here,
        HTTPException: not_here,
        Refused: refused,
        Unavailable: unavailable,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _add_files(app: FastAPI, course: Course) -> None:
    css, script = static("style.css"), static("keys.js")

    @app.get("/style.css")
    def style() -> Response:
        return Response(css, media_type="text/css", headers={"cache-control": "max-age=3600"})

    @app.get("/keys.js")
    def keys() -> Response:
        return Response(script, media_type="text/javascript", headers={"cache-control": "max-age=3600"})

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    @app.get("/r/{token}/pictures/{name}.png")
    def picture(token: str, name: str) -> Response:
        if not course.may_see(_known(course, token), name):
            raise NotHere
        try:
            content = (course.store.folder / PICTURES / f"{name}.png").read_bytes()
        except OSError as error:
            log.error("study: picture %s: %s", name, error.strerror)
            raise NotHere from None
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=86400, immutable"})


def _add_start(app: FastAPI, course: Course) -> None:
    @app.get("/r/{token}/")
    def start(token: str) -> Response:
        rater = _known(course, token)
        if rater.consented:
            return _to(token, course.next_page(rater))
        return page("consent", study=course.study, count=len(course.list_of(rater)))

    @app.post("/r/{token}/")
    def consent(token: str, form: Form) -> Response:
        rater = _known(course, token)
        if form.get("consent") != "yes":
            return page("consent", 422, study=course.study, count=len(course.list_of(rater)))
        course.store.consent(rater.number)
        return _to(token, "next")

    @app.get("/r/{token}/next")
    def following(token: str) -> Response:
        return _to(token, course.next_page(_known(course, token)))


def _add_tutorial(app: FastAPI, course: Course) -> None:
    total = len(course.lessons)

    def lesson_page(lesson: Lesson, answers: dict[str, str], error: str = "", status: int = 200) -> HTMLResponse:
        item = shown(course.study, course.lessons[lesson.position - 1], True, answers)
        return page(
            "tutorial", status, lesson=lesson, total=total, error=error, mark=course.study.rules.pass_mark, **item
        )

    @app.get("/r/{token}/tutorial")
    def lesson(token: str) -> Response:
        rater = _known(course, token)
        if not rater.consented or rater.passed:
            return _to(token, course.next_page(rater))
        return lesson_page(course.lesson(rater), {})

    @app.post("/r/{token}/tutorial")
    def learn(token: str, form: Form) -> Response:
        rater, answers = _known(course, token), course.valid(form)
        sent = Lesson(_whole(form.get("attempt")), _whole(form.get("position")))
        if not rater.consented or sent != course.lesson(rater):  # sent twice, or from an old page
            seen = course.store.tutorial_answers(rater.number, *sent)
            return _to(token, f"tutorial/{sent.attempt}/{sent.position}" if seen else "next")
        if len(answers) < len(course.study.questions):
            return lesson_page(sent, answers, CHOOSE, 422)
        try:
            course.learn(rater, sent, answers)
        except Unavailable as error:
            log.error("study: %s", error)
            return lesson_page(sent, answers, _not_saved(error), 503)
        return _to(token, f"tutorial/{sent.attempt}/{sent.position}")

    @app.get("/r/{token}/tutorial/{attempt}/{position}")
    def explained(token: str, attempt: Number, position: Number) -> Response:
        rater, lesson = _known(course, token), Lesson(attempt, position)
        answers = course.store.tutorial_answers(rater.number, *lesson)
        if not answers or not 1 <= lesson.position <= total:
            raise NotHere
        item = course.lessons[lesson.position - 1]
        marks = {key: item.is_right(key, choice, True) for key, choice in answers.items()}
        outcome = course.outcome(rater, lesson.attempt) if lesson.position == total else None
        values = shown(course.study, item, True, answers) | {"explanation": item.explanation}
        return page("explained", lesson=lesson, total=total, marks=marks, outcome=outcome, **values)


def _add_items(app: FastAPI, course: Course) -> None:
    def item_page(
        rater: Rater, number: int, answers: dict[str, str], revision: int, error: str = "", status: int = 200
    ) -> Response:
        item, first_on_left = course.item(rater, number) or _nothing()
        answered, total = len(course.store.answered(rater.number)), len(course.list_of(rater))
        values = shown(course.study, item, first_on_left, answers)
        return page(
            "item", status, number=number, total=total, answered=answered, revision=revision, error=error, **values
        )

    def ready(token: str) -> tuple[Rater, bool]:
        rater = _known(course, token)
        return rater, rater.consented and rater.passed

    @app.get("/r/{token}/items/{number}")
    def show(token: str, number: Number) -> Response:
        rater, is_ready = ready(token)
        if not is_ready:
            return _to(token, course.next_page(rater))
        item, _ = course.item(rater, number) or _nothing()
        try:
            course.store.show(rater.number, item.id)
        except Unavailable as error:  # when it was shown is worth less than that it is
            log.error("study: %s", error)
        answers, revision = course.store.answers(rater.number, item.id)
        return item_page(rater, number, answers, revision)

    @app.post("/r/{token}/items/{number}")
    def answer(token: str, number: Number, form: Form) -> Response:
        rater, is_ready = ready(token)
        if not is_ready:
            return _to(token, course.next_page(rater))
        item, first_on_left = course.item(rater, number) or _nothing()
        answers, revision = course.valid(form), _whole(form.get("revision"))
        if len(answers) < len(course.study.questions):
            return item_page(rater, number, answers, revision, CHOOSE, 422)
        try:
            course.store.save(rater.number, item.id, answers, first_on_left, revision)
        except Stale:
            _, latest = course.store.answers(rater.number, item.id)
            notice = "This was answered on another page meanwhile. Save again if the answers below are the right ones."
            return item_page(rater, number, answers, latest, notice, 409)
        except Unavailable as error:
            log.error("study: %s", error)
            return item_page(rater, number, answers, revision, _not_saved(error), 503)
        return _to(token, "next")

    @app.get("/r/{token}/done")
    def done(token: str) -> Response:
        rater, is_ready = ready(token)
        if not is_ready or course.next_number(rater) is not None:
            return _to(token, course.next_page(rater))
        return page("done", study=course.study, count=len(course.list_of(rater)))


def _add_administration(app: FastAPI, course: Course) -> None:
    def only_for(token: str) -> None:
        if not course.store.is_administrator(token):
            raise NotHere

    @app.get("/admin/{token}/")
    def overview(token: str) -> Response:
        only_for(token)
        return page("admin", **progress(course.study, course.store))

    @app.get("/admin/{token}/answers.csv")
    def export(token: str) -> Response:
        only_for(token)
        named = {"content-disposition": 'attachment; filename="answers.csv"'}
        return PlainTextResponse(answers_csv(course.store), media_type="text/csv", headers=named)


def _nothing() -> tuple:
    raise NotHere


def _not_saved(error: Unavailable) -> str:
    return f"Not saved: {error}. What you chose is still here; please send it again in a minute."
