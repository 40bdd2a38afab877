// Elements and text. Text of models and users becomes text nodes, never markup.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Controls, format characters (bidirectional overrides, zero-width spaces), private use, other spaces than U+0020;
// joiners stay, they only shape what stands beside them.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]/gu;
const AS_THEY_ARE = "\n\t\u200c\u200d";

function standIn(char) {
  return `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Text whose unseen characters are shown by their number, as nodes. */
export function visible(given, { breaks = false } = {}) {
  const text = given.replaceAll("\r\n", "\n"); // the page says beside the editor which line breaks a response has
  const nodes = [];
  let last = 0;
  for (const { 0: char, index } of text.matchAll(UNSEEN)) {
    if (AS_THEY_ARE.includes(char) && !(breaks && char === "\n")) continue;
    nodes.push(text.slice(last, index));
    const sign = char === "\n" ? "⏎\n" : standIn(char);
    nodes.push(el("span", { class: "unseen", title: "a character that cannot be seen" }, sign));
    last = index + char.length;
  }
  nodes.push(text.slice(last));
  return nodes;
}

/** Which characters of a text cannot be seen, each once. */
export function unseen(text) {
  const found = [...text.matchAll(UNSEEN)].map((match) => match[0]).filter((char) => !AS_THEY_ARE.includes(char));
  return [...new Set(found)].map(standIn);
}

const TAGS = new Set(
  ["p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "hr", "br", "a"],
);

/** The guideline: nested [tag, attributes, children], of which only known tags become elements. */
export function tree(nodes) {
  return nodes.map((node) => {
    if (typeof node === "string") return node;
    const [tag, { href }, children] = node;
    const safe = /^(https?:|mailto:)/.test(href ?? "") ? { href, rel: "noreferrer noopener", target: "_blank" } : {};
    return el(TAGS.has(tag) ? tag : "span", tag === "a" ? safe : {}, ...tree(children));
  });
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}
