"use strict";
// On the live page only: ask for news, and load the page again where the reader left it.
(() => {
  const state = document.getElementById("live");
  const name = (details) => {
    const section = details.closest("section[aria-labelledby]");
    return `${section?.getAttribute("aria-labelledby")} ${details.querySelector("summary").textContent}`;
  };
  const every = [...document.querySelectorAll("main details")];
  const kept = JSON.parse(sessionStorage.getItem("reading") ?? "null");
  if (kept) {
    for (const details of every) details.open = kept.open[name(details)] ?? details.open;
    scrollTo({ top: kept.at, behavior: "instant" });
  }
  const keep = () => {
    const open = Object.fromEntries(every.map((details) => [name(details), details.open]));
    sessionStorage.setItem("reading", JSON.stringify({ open, at: scrollY }));
  };
  const ask = async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const version = await answer.text();
      if (answer.ok && version !== state.dataset.version) {
        keep();
        location.reload();
        return;
      }
      state.textContent = answer.ok ? state.dataset.says : version;
    } catch {
      state.textContent = "The live page has ended: run make watch again, or open report.html.";
    }
    setTimeout(ask, 2000);
  };
  setTimeout(ask, 2000);
})();
