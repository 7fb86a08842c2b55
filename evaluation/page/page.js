"use strict";
// The failures browser. Texts come from models and are hostile: they become text nodes and nothing else.
(() => {
  const STEP = 25;
  const element = (id) => document.getElementById(id);
  const samples = JSON.parse(element("failures-data").textContent);
  const form = element("filters");
  if (!form) return;
  const haystacks = samples.map((s) =>
    [s.id, s.question, s.images, s.reference, s.prediction ?? ""].join("\n").toLowerCase());
  let found = samples;
  let shown = 0;

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function answer(heading, text) {
    const block = make("div");
    const pre = make("pre", text === null ? "no prediction" : text === "" ? "blank" : text, text ? "" : "none");
    pre.tabIndex = 0;
    block.append(make("h4", heading), pre);
    return block;
  }

  function card(sample) {
    const article = make("article", undefined, "panel sample");
    const line = make("div", undefined, "line");
    const bad = sample.reason.startsWith("invalid") || sample.reason === "no prediction";
    line.append(make("h3", sample.id), make("span", sample.reason, bad ? "badge bad" : "badge warn"));
    line.append(make("span", sample.task.replaceAll("_", " "), "small muted"));
    const number = sample.task === "counting" || sample.task === "regression";
    if (sample.score !== null) line.append(make("span", (number ? "error " : "score ") + sample.score, "small muted"));
    const question = make("p", sample.question, "question");
    question.tabIndex = 0;
    const answers = make("div", undefined, "answers");
    answers.append(answer("Reference", sample.reference), answer("Prediction", sample.prediction));
    article.append(line, question, make("p", sample.images, "small muted"), answers);
    return article;
  }

  function showMore() {
    element("samples").append(...found.slice(shown, shown + STEP).map(card));
    shown = Math.min(found.length, shown + STEP);
    element("more").hidden = shown >= found.length;
    element("found").textContent = `${found.length.toLocaleString("en")} samples match, ${shown.toLocaleString("en")} shown`;
  }

  function apply() {
    const wanted = new FormData(form);
    const text = wanted.get("text").trim().toLowerCase();
    found = samples.filter((sample, place) =>
      ["task", "dataset", "reason"].every((key) => !wanted.get(key) || sample[key] === wanted.get(key)) &&
      haystacks[place].includes(text));
    shown = 0;
    element("samples").replaceChildren();
    showMore();
  }

  let waiting;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  element("more").addEventListener("click", showMore);
  apply();
})();
