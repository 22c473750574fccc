// Answers by key. The page is the same without it.
"use strict";
(function () {
  const form = document.querySelector("form.answers");
  if (!form) return;
  const questions = Array.from(form.querySelectorAll("fieldset"));
  form.querySelectorAll(".keys").forEach((hint) => { hint.hidden = false; });

  function move(to) {
    questions.forEach((question, n) => question.classList.toggle("current", n === to));
  }
  function current() {
    return Math.max(0, questions.findIndex((question) => question.classList.contains("current")));
  }
  const open = questions.findIndex((question) => !question.querySelector("input:checked"));
  move(open < 0 ? 0 : open);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const here = current();
    if (event.key === "Backspace") {
      event.preventDefault();
      move(Math.max(0, here - 1));
      return;
    }
    if (event.key === "Enter" && !event.target.closest("a, button")) {
      event.preventDefault();
      form.requestSubmit();
      return;
    }
    const input = questions[here].querySelector(`input[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!input) return;
    event.preventDefault();
    input.checked = true;
    input.focus({ preventScroll: true });
    move(Math.min(questions.length - 1, here + 1));
  });
  form.addEventListener("change", (event) => {
    const here = questions.indexOf(event.target.closest("fieldset"));
    if (event.target.matches(":focus-visible") && here === current()) return; // arrow keys go on within the question
    move(Math.min(questions.length - 1, here + 1));
  });
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  window.addEventListener("pageshow", () => { sent = false; });
})();
