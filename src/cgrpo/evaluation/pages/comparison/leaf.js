"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const element = (tag, text, parent, name) => {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (name) made.className = name;
  if (parent) parent.append(made);
  return made;
};
const subjects = [...new Set(data.pairs.map((pair) => pair.s))];
element("option", "all", get("subject")).value = "";
for (const subject of subjects) element("option", subject, get("subject")).value = subject;
data.shown.slice(1).forEach((method, m) => data.columns.forEach((column, c) => {
  for (const [sign, word] of [[1, "gains"], [-1, "losses"]]) {
    const option = element("option", `${column}: ${method}’s ${word} first`, get("order"));
    option.value = JSON.stringify([m + 1, c, sign]);
  }
}));
let first = 0, chosen = [];

function choose() {
  const subject = get("subject").value, kind = get("kind").value, order = get("order").value;
  chosen = data.pairs.filter((p) => (!subject || p.s === subject) && (!kind || p.q === (kind === "property")));
  if (order) {
    const [m, c, sign] = JSON.parse(order);
    const gap = (p) => (p.v[m]?.[c] == null || p.v[0]?.[c] == null ? null : sign * (p.v[m][c] - p.v[0][c]));
    chosen = chosen.map((p) => [gap(p), p]).sort((a, b) => (b[0] ?? -Infinity) - (a[0] ?? -Infinity) || 0).map((x) => x[1]);
  }
  first = 0;
  show();
}
function picture(row, place, label, alt, scores) {
  const figure = element("figure", "", row);
  if (place == null) {
    const gone = element("div", "", figure, "missing");
    gone.setAttribute("role", "img");
    gone.setAttribute("aria-label", `${label}: missing`);
    element("span", "missing", gone);
  } else {
    const img = element("img", "", figure);
    img.alt = alt;
    img.tabIndex = 0;
    const code = data.pictures[place], drawn = code.startsWith("iVBOR"); // tiny pictures are PNG
    if (drawn) img.className = "pixels";
    img.src = `data:image/${drawn ? "png" : "jpeg"};base64,${code}`;
  }
  const caption = element("figcaption", "", figure);
  element("b", label, caption);
  (scores || []).forEach((score, c) => {
    const line = element("span", "", caption);
    element("i", data.columns[c].replaceAll("_", " "), line);
    element("i", score == null ? "–" : score.toFixed(3).replace("-", "−"), line);
  });
}
function show() {
  const size = Number(get("size").value), shelf = get("shelf");
  first = Math.max(0, Math.min(first, chosen.length - 1));
  const some = chosen.slice(first, first + size);
  shelf.textContent = "";
  shelf.className = size === 1 ? "one" : "";
  for (const pair of some) {
    const block = element("section", "", shelf, "pair");
    const head = element("h3", pair.p, block);
    element("small", `${pair.s} · prompt ${pair.i}${pair.k ? ` · ${pair.k}` : ""}`, head);
    const row = element("div", "", block, "row");
    row.style.setProperty("--count", data.shown.length + 1);
    picture(row, pair.r, "reference", `reference of ${pair.s}`);
    data.shown.forEach((name, m) => picture(row, pair.m[m], name, `${name}: ${pair.p}`, pair.v[m]));
  }
  const last = first + some.length;
  const range = some.length > 1 ? `${first + 1}–${last}` : last;
  get("place").textContent = chosen.length ? `${range} of ${chosen.length}` : "none";
  get("back").disabled = first === 0;
  get("on").disabled = last >= chosen.length;
}
function leaf(by) {
  const next = first + by * Number(get("size").value);
  if (next < 0 && first === 0 || next >= chosen.length) return;
  first = next;
  show();
}
function otherSubject(by) {
  const now = chosen[first];
  if (get("subject").value || !now) {
    const at = subjects.indexOf(get("subject").value) + by;
    if (at < 0 || at >= subjects.length) return;
    get("subject").value = subjects[at];
    choose();
    return;
  }
  let at = first;
  while (at + by >= 0 && at + by < chosen.length && chosen[at].s === now.s) at += by;
  while (by < 0 && at > 0 && chosen[at - 1].s === chosen[at].s) at -= 1;
  first = at;
  show();
}
for (const id of ["subject", "kind", "order"]) get(id).addEventListener("change", choose);
get("size").addEventListener("change", show);
get("back").addEventListener("click", () => leaf(-1));
get("on").addEventListener("click", () => leaf(1));
if (matchMedia("(max-width: 40rem)").matches) get("filters").open = false;
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.target.matches("select, input, textarea") || event.altKey || event.ctrlKey || event.metaKey) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  if (event.shiftKey) otherSubject(by); else leaf(by);
});
choose();
