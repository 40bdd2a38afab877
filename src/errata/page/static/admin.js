// The admin's overview.

import { ask, signIn } from "./api.js";
import { duration, el, visible } from "./text.js";

const count = (number) => number.toLocaleString("en");
const percent = (share) => `${(share * 100).toFixed(0)} %`;

function figure(name, value, more = "") {
  return el("div", { class: "figure" }, el("dt", {}, name), el("dd", {}, `${value}`), el("dd", { class: "soft small" }, more));
}

function table(title, names, rows) {
  if (!rows.length) return el("section");
  const head = el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)));
  const body = rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", { dir: "auto" }, ...visible(`${cell}`)))));
  return el(
    "section",
    {},
    el("h2", {}, title),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))),
  );
}

function draw(found) {
  const { statistics: edits, agreement } = found;
  const alpha = (value) => (value === null ? "–" : value.toFixed(2));
  const figures = [figure("finished", `${count(found.finished)} of ${count(found.items)}`, `each by ${found.overlap}`)];
  if (edits) {
    const long = found.too_long ? `, and ${count(found.too_long)} too long to compare` : "";
    figures.push(
      figure("already good", percent(edits.share_unchanged), `of ${count(edits.rows)} edits${long}`),
      figure("edit ratio, median", percent(edits.median_edit_ratio), `of the ${count(edits.changed)} changed`),
      figure("words typed", count(edits.words_typed), `${count(edits.words_deleted)} deleted`),
      figure("agreement α", alpha(agreement.both), `words ${alpha(agreement.words)}, gaps ${alpha(agreement.gaps)}, on ${count(agreement.items)} responses`),
    );
  }
  const people = found.annotators.map((one) => [
    one.name,
    one.done,
    Object.entries(one.outcomes).map(([name, count]) => `${name} ${count}`).join(", "),
    duration(one.active_seconds),
    one.median_seconds_a_word === null ? "–" : one.median_seconds_a_word.toFixed(2),
    one.keystrokes,
    one.pastes,
  ]);
  document.getElementById("overview").replaceChildren(
    el("dl", { class: "figures" }, ...figures),
    table("Annotators", ["name", "done", "outcomes", "active", "seconds a word", "keystrokes", "pastes"], people),
    table("Words replaced", ["original", "edited", "times"], edits?.substituted.slice(0, 10) ?? []),
    table("Reasons", ["reason", "edits"], Object.entries(edits?.reasons ?? {})),
    table("Skipped, flagged, cannot be saved", ["response", "who", "outcome", "note"], found.notes.map(Object.values)),
  );
  document.getElementById("overview").hidden = false;
}

try {
  const me = await signIn();
  document.getElementById("to-editor").hidden = !me.edits;
  draw(await ask("/api/overview", undefined, { timeout: 120000 }));
} catch (error) {
  document.getElementById("message").hidden = false;
  document.getElementById("message").textContent = error.message;
}
