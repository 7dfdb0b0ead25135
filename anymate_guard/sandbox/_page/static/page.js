// Asks for the changing parts of the page and puts them in place; sends what the buttons and the form say.
"use strict";

const PAUSE = 1000; // milliseconds between two looks, or ten times what the last one took
const shown = new Map(); // part -> the HTML it was last made from
let looking = null;
let timer = 0;

/** Make a node like another one, touching only what differs, so that focus, selection and open details stay. */
function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  morphChildren(from, to);
}

function morphChildren(from, to) {
  const wanted = [...to.childNodes];
  const ids = new Set(wanted.map((node) => node.id).filter(Boolean));
  for (const node of [...from.childNodes]) {
    if (node.id && !ids.has(node.id)) node.remove();
  }
  let here = from.firstChild;
  for (const node of wanted) {
    if (here && (here.id || "") === (node.id || "")) {
      const next = here.nextSibling;
      morph(here, node);
      here = next;
    } else {
      const known = node.id && [...from.children].find((child) => child.id === node.id);
      from.insertBefore(known || node, here);
      if (known) morph(known, node);
    }
  }
  while (here) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
}

function show(parts) {
  const active = document.activeElement;
  for (const [id, html] of Object.entries(parts)) {
    if (shown.get(id) === html) continue;
    shown.set(id, html);
    const template = document.createElement("template");
    template.innerHTML = html;
    morphChildren(document.getElementById(id), template.content);
  }
  if (active.isConnected && active !== document.activeElement) active.focus({ preventScroll: true }); // it was moved
}

function setConnected(yes) {
  const chip = document.getElementById("connection");
  const text = yes ? "Live" : "Not connected";
  if (chip.textContent === text) return;
  chip.textContent = text;
  chip.className = yes ? "chip finished" : "chip failed";
  say(yes ? "" : "The sandbox does not answer; trying again.");
}

function say(text) {
  document.getElementById("said").textContent = text;
}

async function look() {
  const began = performance.now();
  const ours = (looking = new AbortController());
  try {
    const response = await fetch("page/parts" + location.search, { signal: ours.signal });
    if (!response.ok) throw new Error(response.statusText);
    show(await response.json());
    setConnected(true);
  } catch (error) {
    if (ours !== looking) return; // overtaken by a newer look
    setConnected(false);
  }
  if (ours === looking) timer = setTimeout(look, Math.max(PAUSE, 10 * (performance.now() - began)));
}

function lookNow() {
  clearTimeout(timer);
  if (looking) looking.abort();
  return look();
}

async function send(method, path, fields, done) {
  try {
    const response = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
    const answer = await response.json();
    say(response.ok && done ? done : answer.message);
  } catch (error) {
    say("The sandbox does not answer.");
  }
  await lookNow();
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    say("Copied.");
  } catch (error) {
    say("The browser does not let the page copy.");
  }
}

function stop({ process: key, stopped }) {
  const done = stopped === "true" ? `${key} may run again.` : `${key} is stopped: OkToRun says no.`;
  return send("PUT", "sandbox/processes/" + encodeURIComponent(key), { stopped: stopped !== "true" }, done);
}

function reset() {
  if (!confirm("Forget all runs, failures, requests and settings of processes?")) return;
  send("POST", "sandbox/reset", undefined, "Everything is forgotten.");
}

const buttons = {
  "[data-copy]": copy,
  "[data-process]": (button) => stop(button.dataset),
  "#end-faults": () => send("DELETE", "sandbox/faults", undefined, "All calls go through again."),
  "#deliver": () => send("POST", "sandbox/journal", undefined),
  "#reset": reset,
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) {
    const name = Object.keys(buttons).find((selector) => button.matches(selector));
    if (name) buttons[name](button);
    return;
  }
  const link = event.target.closest("a[data-view]");
  if (link && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    history.pushState(null, "", link.href);
    lookNow();
  }
});

document.getElementById("find").addEventListener("input", (event) => {
  const query = new URLSearchParams(location.search);
  query.delete("page");
  query.set("find", event.target.value);
  history.replaceState(null, "", "?" + query);
  lookNow();
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const { process: key } = event.target.dataset;
  if (key === undefined) return fail(event.target.elements);
  const { mode, entries, seconds, blocked } = event.target.elements;
  const [each, all] = [seconds.valueAsNumber, entries.valueAsNumber];
  const kpis = mode.value === "simple" ? { secondsSaved: each } : { entries: all, secondsSavedPerEntry: each };
  const fields = { ...kpis, blockedDate: blocked.value };
  send("PUT", "sandbox/processes/" + encodeURIComponent(key), fields, `The settings of ${key} are saved.`);
});

function fail({ operation, shape, times }) {
  const fields = { operation: operation.value, times: times.valueAsNumber, ...JSON.parse(shape.value) };
  const what = operation.value === "*" ? "call" : operation.value;
  const how = shape.selectedOptions[0].textContent;
  send("POST", "sandbox/faults", fields, `The next ${what} goes wrong: ${how}.`);
}

addEventListener("popstate", () => {
  document.getElementById("find").value = new URLSearchParams(location.search).get("find") || "";
  lookNow();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else lookNow();
});
look();
