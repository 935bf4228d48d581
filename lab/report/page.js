"use strict";
// The page is whole without this: it filters, copies, and opens what a link or a printer needs.
(() => {
  document.documentElement.classList.add("scripted");
  const told = document.getElementById("told");

  // Copy: text is taken from the page and stays text.
  const write = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) throw new Error("not copied");
    }
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const label = button.firstChild;
    const before = label.data;
    let said = "Copied";
    try {
      await write(document.getElementById(button.dataset.copy).textContent);
    } catch {
      said = "Could not copy";
    }
    button.focus();
    told.textContent = said;
    if (button.classList.contains("told")) return;
    label.data = said;
    button.classList.add("told");
    setTimeout(() => {
      label.data = before;
      button.classList.remove("told");
      told.textContent = "";
    }, 1500);
  });

  // Filters: what is chosen stands in the address, so that a link shows the same.
  const form = document.getElementById("filters");
  const rows = [...document.querySelectorAll("tr.entry")];
  const names = ["verdict", "part", "data", "experiment"];
  const chosen = () => new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  const apply = () => {
    const wanted = chosen();
    let count = 0;
    for (const row of rows) {
      const fits = (name) => !wanted.has(name) || wanted.getAll(name).includes(row.dataset[name]);
      row.hidden = !names.every(fits);
      count += !row.hidden;
    }
    for (const group of document.querySelectorAll("#ledger tbody")) {
      group.hidden = !group.querySelector("tr.entry:not([hidden])");
    }
    document.getElementById("shown").textContent = `${count} of ${rows.length} verdicts`;
  };
  const fill = (wanted) => {
    for (const field of form.elements) {
      if (field.type === "checkbox") field.checked = wanted.getAll(field.name).includes(field.value);
      else if (field.name) field.value = wanted.get(field.name) ?? "";
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
    }
    apply();
  };
  const remember = () => {
    apply();
    history.replaceState(null, "", `#${chosen()}`);
  };

  // A link leads somewhere that can be seen.
  const follow = () => {
    const hash = location.hash.slice(1);
    if (form && names.some((name) => hash.startsWith(`${name}=`))) {
      fill(new URLSearchParams(hash));
      return;
    }
    const target = hash && document.getElementById(hash);
    if (!target) return;
    if (form && (target.hidden || target.closest("[hidden]"))) fill(new URLSearchParams());
    for (let outer = target.closest("details"); outer; outer = outer.parentElement.closest("details")) {
      outer.open = true;
    }
    target.scrollIntoView();
  };
  if (form) {
    form.addEventListener("change", remember);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(remember));
    apply();
  }
  addEventListener("hashchange", follow);
  follow();

  // Paper cannot be clicked open.
  const closed = [];
  addEventListener("beforeprint", () => {
    closed.push(...document.querySelectorAll("details:not([open])"));
    for (const each of closed) each.open = true;
    for (const image of document.images) image.loading = "eager";
  });
  addEventListener("afterprint", () => {
    for (const each of closed.splice(0)) each.open = false;
  });
})();
