"use strict";
// Draws the charts of the page with Vega, and shows the candidate that is selected.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const views = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  let selected = data.first;

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function pairs(list, rows) {
    list.replaceChildren(
      ...rows.flatMap(([name, text, className]) => [
        element("dt", name),
        element("dd", text, className),
      ]),
    );
  }

  // Colours

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function coloured(spec) {
    if (Array.isArray(spec)) return spec.map(coloured);
    if (spec !== null && typeof spec === "object") {
      return Object.fromEntries(Object.entries(spec).map(([key, own]) => [key, coloured(own)]));
    }
    const found = typeof spec === "string" && /^var\((--[a-z-]+)\)$/.exec(spec);
    return found ? colour(found[1]) : spec;
  }

  // Charts

  function rows({ columns, rows: cells }) {
    return cells.map((row) => Object.fromEntries(row.map((cell, at) => [columns[at], cell])));
  }

  async function draw(place) {
    const name = place.dataset.chart;
    const chart = data.charts[name];
    views.get(name)?.finalize();
    const spec = coloured(chart.spec);
    const detail = details[name];
    spec.datasets = detail
      ? { [name]: detail(data.candidates[selected]) }
      : Object.fromEntries(Object.entries(chart.data).map(([own, table]) => [own, rows(table)]));
    const { view } = await vegaEmbed(place, spec, {
      mode: "vega-lite",
      renderer: chart.renderer,
      actions: false,
      defaultStyle: false,
      tooltip: showTip,
    });
    view.addEventListener("click", (_event, item) => {
      if (item?.datum?.id !== undefined) select(item.datum.id, { follow: true });
    });
    views.set(name, view);
    setSignal(view, "reach", coarse.matches ? 500 : 150);
    setSignal(view, "selected", selected ?? -1);
    await view.runAsync();
  }

  function setSignal(view, name, value) {
    try {
      view.signal(name, value);
    } catch {
      return; // this chart has no such signal
    }
  }

  function drawAll() {
    if (section && data.candidates[selected]) section.hidden = false; // charts need its width
    const places = [...document.querySelectorAll("[data-chart]")];
    return Promise.all(places.map(draw)).then(() => show(selected));
  }

  // Tooltips

  const tip = document.getElementById("tip");

  function showTip(_handler, event, item, value) {
    if (value === null || value === undefined || value === "") {
      tip.hidden = true;
      return;
    }
    const id = item?.datum?.id;
    const list = element("dl");
    const known = id !== undefined && value.id !== undefined ? data.candidates[id] : undefined;
    if (known) {
      pairs(list, known.tip);
      tip.replaceChildren(element("strong", known.label), list);
    } else {
      pairs(list, Object.entries(value).map(([name, text]) => [name, String(text)]));
      tip.replaceChildren(list);
    }
    tip.hidden = false;
    const { clientX: x, clientY: y } = event.touches?.[0] ?? event;
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    const top = y + 14 + box.height > innerHeight ? y - 14 - box.height : y + 14;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  }

  // The selected candidate

  const section = document.getElementById("candidate");

  function part(name) {
    return section.querySelector(`[data-of="${name}"]`);
  }

  function select(id, { follow }) {
    selected = id;
    show(id);
    if (follow) section.scrollIntoView({ block: "nearest" });
    history.replaceState(null, "", `#candidate=${data.candidates[id].digest}`);
  }

  function show(id) {
    const one = data.candidates[id];
    if (!section || !one) return;
    const whole = data.candidates[data.unpruned];
    part("label").textContent = one.label;
    part("notes").replaceChildren(...one.notes.map((text) => element("span", text)));
    pairs(part("facts"), one.facts);
    pairs(
      part("recipe"),
      Object.entries(data.recipe).map(([name, usual]) => {
        const own = one.recipe[name];
        return own === undefined
          ? [name, usual]
          : [name, `${own} (the study's: ${usual})`, "changed"];
      }),
    );
    const line = one.export === null ? [] : [element("code", `${data.export} --trial ${one.export} --out bundle`)];
    part("export").replaceChildren(...line);
    part("place").textContent = `Peak ${one.peak}, reached in ${one.place}`;
    showLedger(one, whole);
    for (const [name, rowsOf] of Object.entries(details)) views.get(name)?.data(name, rowsOf(one));
    for (const row of document.querySelectorAll("tr[data-id]")) {
      row.classList.toggle("selected", Number(row.dataset.id) === id);
    }
    for (const view of views.values()) {
      setSignal(view, "selected", id);
      view.runAsync();
    }
  }

  function showLedger(one, whole) {
    part("column").textContent = one.label;
    const own = new Map(one.ledger.map(([name, , text]) => [name, text]));
    const other = new Map((whole ?? one).ledger.map(([name, , text]) => [name, text]));
    const lines = data.categories.filter(([name]) => own.has(name) || other.has(name));
    part("ledger").replaceChildren(
      ...lines.map(([name, token]) => line(name, token, own.get(name), other.get(name))),
      line("together", "", one.peak, whole?.peak),
    );
  }

  function line(name, token, own, other) {
    const row = element("tr");
    const head = element("td");
    if (token) {
      const swatch = element("span", "", "swatch");
      swatch.style.background = token;
      head.append(swatch);
    }
    head.append(name);
    row.append(head, element("td", own ?? "–", "right"), element("td", other ?? "–", "right"));
    return row;
  }

  // The data of the charts that show one candidate.
  const details = {
    ledger(one) {
      const whole = data.candidates[data.unpruned];
      const shown = whole && whole !== one ? [whole, one] : [one];
      return shown.flatMap(({ label, ledger }) =>
        ledger.map(([category, held, size]) => ({
          who: label,
          category,
          mib: held / 2 ** 20,
          size,
        })),
      );
    },
    channels(one) {
      return data.groups.map(([name, full], at) => ({
        name,
        full: 100,
        kept: (100 * one.kept[at]) / full,
        text: `${one.kept[at]} of ${full}`,
        ratio: 1 - one.kept[at] / full,
      }));
    },
  };

  // Links to a candidate, in the tables and from elsewhere

  function fromAddress() {
    const digest = /^#candidate=([0-9a-f]+)$/.exec(location.hash)?.[1];
    const id = data.candidates.findIndex((one) => one.digest === digest);
    return id < 0 ? null : id;
  }

  addEventListener("hashchange", () => {
    const id = fromAddress();
    if (id === null) return;
    selected = id;
    show(id);
    section.scrollIntoView({ block: "start" });
  });
  for (const row of document.querySelectorAll("tr[data-id]")) {
    row.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens the link elsewhere
      event.preventDefault();
      select(Number(row.dataset.id), { follow: true });
    });
  }
  dark.addEventListener("change", drawAll);
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });
  selected = fromAddress() ?? selected;
  drawAll().then(() => document.documentElement.classList.add("drawn"));
})();
