"use strict";
// Draws the pairs of the page as they scroll into view. Text of models and users becomes text nodes, never HTML.
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const main = document.querySelector("main");
  const card = document.getElementById("card");
  const form = document.querySelector(".filter");
  const SIDES = ["original", "edited"];
  const [KEPT, , , SUBSTITUTED, OMISSION, IGNORED] = page.labels.keys();
  const MARKED = 0.2;
  const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\p{Zs}]/u;
  const OPENS_NO_LINE = /^\p{P}/u;

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };

  const unpack = (kind, packed) => {
    const { table, width } = page.tables[kind];
    const values = [];
    for (let start = 0; start < packed.length; start += width) {
      let index = 0;
      for (const digit of packed.slice(start, start + width)) index = index * page.digits.length + page.digits.indexOf(digit);
      values.push(table[index]);
    }
    return values;
  };

  // As errata.views.pages.stand_in: what is shown for a character that cannot be seen or that moves its neighbours.
  const standIn = (char) => {
    const code = char.codePointAt(0);
    if (char === "\n") return "⏎";
    if (char === "\t") return "⇥";
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    if (code === 0x7f) return "␡";
    if (char === " " || char === "\u200c" || char === "\u200d" || !UNSEEN.test(char)) return null;
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  };
  const visible = (text) => Array.from(text, (char) => standIn(char) ?? char).join("");
  const number = (value) => (value > 0 ? "+" : "") + String(value).replace("-", "−");

  const appendText = (parent, text) => {
    let plain = "";
    const flush = () => { if (plain) parent.append(plain); plain = ""; };
    for (const char of text) {
      const sign = standIn(char);
      if (sign === null && char !== " ") { plain += char; continue; }
      flush();
      parent.append(sign === null ? element("span", "ws", " ") : element("span", "ctl", sign));
    }
    flush();
  };

  // The tokens of one side: text, which byte of a character, label, id, weight, reward, and the value that colours it.
  const readSide = (row, side) => {
    const { text, ended } = row.sides[side];
    const stream = (kind) => unpack(kind, row.streams[kind][side]);
    const [lengths, ids, labels] = ["lengths", "ids", "labels"].map(stream);
    const [weights, rewards] = ["weights", "rewards"].map((kind) => (row[kind][side] ? stream(kind) : null));
    const shown = { labels: labels.map((label) => page.tints[side][label]), weights, rewards }[page.show];
    let taken = 0;
    const tokens = lengths.map((length, index) => {
      const start = taken;
      taken += Math.max(length, 0);
      return {
        side, index, text: text.slice(start, taken), more: length < 0, label: labels[index], id: ids[index],
        end: ended && index === lengths.length - 1, weight: weights?.[index], reward: rewards?.[index],
        value: shown?.[index] ?? 0, piece: 0, pieces: 0,
      };
    });
    for (let first = 0; first < tokens.length; first += 1) {
      let last = first + 1;
      while (tokens[last]?.more) last += 1;
      if (tokens[first].more || last - first < 2) continue;
      for (let index = first; index < last; index += 1) {
        Object.assign(tokens[index], { piece: index - first + 1, pieces: last - first, whole: tokens[first].text });
      }
    }
    const rest = text.slice(taken);
    if (rest) tokens.push({ side, index: tokens.length, text: rest, cut: true, value: 0 });
    return tokens;
  };

  const drawToken = (token) => {
    const share = Math.max(-1, Math.min(1, token.value / page.scale));
    const names = ["tok"];
    if (share) names.push(share > 0 ? "pos" : "neg");
    if (Math.abs(share) >= MARKED) names.push("marked");
    if (token.label === SUBSTITUTED) names.push("outlined");
    if (token.label === OMISSION) names.push("omission");
    if (token.label === IGNORED) names.push("ignored");
    if (token.cut) names.push("cut");
    if (token.pieces) names.push("piece");
    const drawn = element("span", names.join(" "));
    drawn.style.setProperty("--a", Math.abs(share).toFixed(2));
    drawn.tabIndex = token.index ? -1 : 0;
    drawn.token = token;
    appendText(drawn, token.text);
    const sign = token.end ? "⟨end⟩" : token.pieces ? `${token.piece}/${token.pieces}` : token.text ? "" : "∅";
    if (sign) drawn.append(element("span", "ctl", sign));
    return drawn;
  };

  const ghostOf = (tokens) => {
    const ghost = element("span", "ghost");
    ghost.ariaHidden = "true";
    for (const token of tokens) {
      const drawn = drawToken(token);
      drawn.removeAttribute("tabindex");
      drawn.className = token.pieces ? "tok piece" : "tok";
      drawn.token = undefined;
      ghost.append(drawn);
    }
    return ghost;
  };

  const look = (tokens) => tokens.map((token) => `${token.text}\0${token.piece}${token.end}`).join("\0");
  const newLine = (tokens) => tokens.some((token) => token.text.includes("\n"));

  // Both sides get the same boxes in the same order, each as wide as the wider of its two texts: so lines break alike.
  const drawWords = (row) => {
    const sides = SIDES.map((_, side) => readSide(row, side));
    const counts = SIDES.map((_, side) => unpack("columns", row.streams.columns[side]));
    const columns = counts[0].map((_, index) => sides.map((tokens, side) => tokens.splice(0, counts[side][index])));
    if (sides.some((tokens) => tokens.length)) columns.push(sides);
    const words = SIDES.map((name) => {
      const made = element("div", "words");
      made.setAttribute("role", "group");
      made.ariaLabel = name;
      made.dir = "auto";
      return made;
    });
    const lines = words.map((side) => ({ side, last: null }));
    columns.forEach((column, index) => {
      const same = look(column[0]) === look(column[1]);
      const texts = column.map((tokens) => tokens.map((token) => token.text).join(""));
      const glued = texts.every((text) => text === "" || OPENS_NO_LINE.test(text)) && texts.join("") !== "";
      column.forEach((tokens, side) => {
        const shown = element("span", tokens.length ? "" : "gap", ...tokens.map(drawToken));
        const box = element("span", "col", shown);
        box.dataset.column = index;
        if (!same) box.append(ghostOf(column[1 - side]));
        const line = lines[side];
        if (glued && line.last) {
          if (line.last.className !== "glue") {
            const glue = element("span", "glue");
            line.last.replaceWith(glue);
            glue.append(line.last);
            line.last = glue;
          }
          line.last.append(box);
        } else {
          words[side].append(box);
          line.last = box;
        }
        // One line break however many signs there are, and on both sides, or they would no longer stand at one height.
        if (column.some(newLine)) {
          words[side].append(document.createElement("br"));
          line.last = null;
        }
      });
    });
    return words;
  };

  const draw = (article) => {
    if (article.drawn) return;
    article.drawn = true;
    watcher.unobserve(article);
    drawWords(article.row).forEach((words, side) => {
      article.querySelectorAll(".sides > div")[side].append(words);
    });
    article.querySelector(".sides").style.minHeight = "";
  };
  const watcher = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "900px 0px" },
  );

  const articles = page.rows.map((row) => {
    const header = element("header", "", element("span", "mono", visible(row.id)));
    header.append(...row.reasons.map((reason) => element("span", "reason", visible(reason))));
    header.append(element("span", "", row.counts));
    const sides = element("div", "sides", ...SIDES.map((name) => element("div", "", element("h3", "", name))));
    sides.style.minHeight = `${3 + 2.3 * Math.ceil(Math.max(...row.sides.map((side) => side.text.length)) / 70)}rem`;
    const article = element("article", "", header, sides);
    article.row = row;
    return article;
  });
  main.append(...articles);
  form.hidden = false;
  articles.forEach((article) => watcher.observe(article));
  addEventListener("beforeprint", () => articles.forEach(draw));

  // The card: what hovering, focus and a click tell of a token.
  let pinned = null;
  const facts = (token) => {
    // Only the text of the token itself has its spaces shown: name, before it, the text, after it.
    const said = [token.pieces ? ["text", `byte ${token.piece} of ${token.pieces} of `, token.whole]
      : token.end ? ["text", "", token.text, "⟨end⟩, end of sequence"]
      : token.text ? ["text", "“", token.text, "”"] : ["text", "∅, no character of its own"]];
    if (token.cut) return [...said, ["token", "none: the row was cut before this"]];
    said.push(["id", `${token.id} (token ${token.index} of the ${SIDES[token.side]})`], ["label", page.labels[token.label]]);
    said.push(["weight", token.weight === undefined ? "not given" : number(token.weight)]);
    said.push(["reward", token.reward === undefined ? "not given" : number(token.reward)]);
    return said;
  };
  const facing = (drawn) => {
    const { column } = drawn.closest(".col").dataset;
    return [...drawn.closest(".sides").querySelectorAll(`.col[data-column="${column}"]`)];
  };
  const hide = () => {
    card.hidden = true;
    document.querySelectorAll(".shown, .facing").forEach((marked) => marked.classList.remove("shown", "facing"));
  };
  const show = (drawn) => {
    hide();
    const list = element("dl", "tok");
    for (const [name, before, text = "", after = ""] of facts(drawn.token)) {
      const told = element("dd", "", before);
      appendText(told, text);
      told.append(after);
      list.append(element("dt", "", name), told);
    }
    card.replaceChildren(list);
    card.hidden = false;
    drawn.classList.add("shown");
    facing(drawn).forEach((box) => box.classList.add("facing"));
    const at = drawn.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - 8));
    const below = at.bottom + 10 + card.offsetHeight < innerHeight;
    card.style.left = `${left + scrollX}px`;
    card.style.top = `${scrollY + (below ? at.bottom + 10 : Math.max(0, at.top - card.offsetHeight - 10))}px`;
  };
  const tokenOf = (event) => event.target.closest?.(".words .tok:not(.ghost *)") ?? null;
  main.addEventListener("pointerover", (event) => {
    const drawn = tokenOf(event);
    if (drawn && !pinned) show(drawn);
  });
  main.addEventListener("pointerout", (event) => {
    if (tokenOf(event) && !pinned) hide();
  });
  main.addEventListener("focusin", (event) => {
    const drawn = tokenOf(event);
    if (!drawn) return;
    pinned = drawn;
    show(drawn);
  });
  main.addEventListener("focusout", () => { pinned = null; hide(); });
  document.addEventListener("click", (event) => {
    const drawn = tokenOf(event);
    if (drawn) { drawn.focus({ preventScroll: true }); pinned = drawn; show(drawn); } else { pinned = null; hide(); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { pinned = null; hide(); return; }
    const drawn = tokenOf(event);
    if (!drawn || event.ctrlKey || event.metaKey || event.altKey) return;
    const tokens = [...drawn.closest(".words").querySelectorAll(".tok")].filter((one) => one.token);
    const here = tokens.indexOf(drawn);
    const other = () => facing(drawn).filter((box) => !box.contains(drawn)).map((box) => box.querySelector(":scope > span:first-child .tok"))[0];
    const next = {
      ArrowRight: () => tokens[here + 1], ArrowLeft: () => tokens[here - 1], Home: () => tokens[0], End: () => tokens.at(-1),
      ArrowUp: other, ArrowDown: other,
    }[event.key]?.();
    if (!next) return;
    event.preventDefault();
    next.focus();
  });

  const keep = (row, text, label) => {
    const words = [row.id, ...row.reasons, ...row.sides.map((side) => side.text)];
    if (text && !words.some((word) => word.toLowerCase().includes(text))) return false;
    if (!label) return true;
    const found = new Set(row.streams.labels.flatMap((packed) => unpack("labels", packed)));
    return label === "none" ? [...found].every((one) => one === KEPT) : found.has(Number(label));
  };
  const filter = () => {
    const text = form.elements.text.value.toLowerCase();
    const label = form.elements.label.value;
    articles.forEach((article) => { article.hidden = !keep(article.row, text, label); });
    const left = articles.filter((article) => !article.hidden).length;
    form.querySelector("output").textContent = `${left} of ${articles.length} ${articles.length === 1 ? "pair" : "pairs"}`;
    hide();
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
})();
