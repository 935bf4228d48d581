"""The page in a real browser: what a reader sees, clicks, prints, and reaches without a mouse."""

import os
import re
import shutil
from pathlib import Path

import pytest

from lab.figures import drawing
from lab.report import watch, writing
from tests import toy_report
from tests.serving import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="make test installs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REFERENCE = Path(writing.REFERENCE)
# Where to leave pictures of the page, to be looked at: SCREENSHOTS=/some/folder make test
PICTURES = os.environ.get("SCREENSHOTS")
WIDE, NARROW, A4 = 1600, 400, 688  # pixels; A4 without its margins at 96 dpi
ROWS = "tr.entry:visible"

if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("needs Chromium (Debian: apt install chromium)", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The page of two experiments on two data sets, from their committed trials."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("batch_size", "batchnorm_regularizer"):  # the second has the widest tables
        shutil.copytree(REFERENCE / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:  # the page has the others
        patch.setattr(drawing, "png", lambda figure: b"")
        writing.write(folder)
    return folder / "report.html"


@pytest.fixture
def visit(browser):
    """Opens a page in a window of its own; nothing may be complained of or fetched by it."""
    contexts, trouble = [], []

    def visit(address, width=WIDE, scheme="light", **more):
        context = browser.new_context(
            viewport={"width": width, "height": 1000}, color_scheme=scheme, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("requestfailed", lambda request: trouble.append(request.url))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address if isinstance(address, str) else address.as_uri())
        return page

    visit.trouble = trouble
    yield visit
    for context in contexts:
        context.close()
    assert not trouble


def overflowing(page):
    """What is wider than the page, by tag and class; what scrolls inside a frame may be."""
    return page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((element) =>
            element.checkVisibility() && !element.closest(".scroll, .unseen, svg, .skip")
            && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        ).map((element) => element.tagName + "." + element.className)"""
    )


def picture(page, name):
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_in_every_size_and_colour(visit, real, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(real, width, scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert overflowing(page) == []
    if (width == WIDE) == (scheme == "light"):  # it takes as long as all the rest
        standard = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
        found = Axe().run(page, options=standard)
        assert found.violations_count == 0, found.generate_report()
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    broken = "[...document.images].filter((image) => !image.naturalWidth || image.alt.length < 20)"
    assert page.evaluate(f"{broken}.length") == 0 and page.locator("img").count() > 5
    assert all(url.startswith("data:") for url in page.asked[1:])
    picture(page, f"{scheme}-{width}")


def test_filters_show_what_was_asked_for_and_can_be_sent_around(visit, real):
    page = visit(real)
    every = page.locator(ROWS).count()
    chip = page.locator(".chip.refuted")
    refuted = int(chip.locator("b").inner_text())
    assert 0 < refuted < every
    chip.click()
    assert (
        page.locator(ROWS).count() == refuted == page.locator(f"{ROWS} .c-verdict .refuted").count()
    )
    assert page.locator("#shown").inner_text() == f"{refuted} of {every} verdicts"
    page.get_by_label("Data set").select_option("mnist1d")
    both = page.locator(ROWS).count()
    assert both < refuted and page.locator("#ledger tbody:visible").count() <= both
    again = visit(page.url)
    assert again.locator(ROWS).count() == both and again.locator(".chip.refuted input").is_checked()
    page.get_by_role("button", name="Show all").click()
    sync_api.expect(page.locator(ROWS)).to_have_count(every)


def test_a_link_to_what_is_filtered_out_shows_it(visit, real):
    page = visit(real)
    page.locator(".chip.refuted").click()
    cell = page.locator(".grid td.supported a").first
    target = page.locator(cell.get_attribute("href"))
    assert not target.is_visible()
    cell.click()
    assert target.is_visible()


def test_copy_buttons_copy_whole_tables(visit, real):
    page = visit(real)
    tables = real.parent / "tables"
    for kind, ending in (("Markdown", "md"), ("LaTeX", "tex")):
        page.get_by_role("button", name=f"Copy {kind}").first.click()
        page.get_by_text("Copied").first.wait_for()
        page.evaluate("document.body.append(document.createElement('textarea'))")
        page.locator("textarea").last.focus()
        page.keyboard.press("Control+v")
        pasted = page.locator("textarea").last.input_value()
        assert pasted.strip() == (tables / f"ledger.{ending}").read_text("utf-8").strip()
    command = page.locator(".again summary").first
    command.click()
    page.get_by_role("button", name="Copy the command").first.click()
    page.locator("textarea").last.fill("")
    page.locator("textarea").last.focus()
    page.keyboard.press("Control+v")
    assert page.locator("textarea").last.input_value() == "make experiment NAME=batch_size"


def test_everything_is_reached_by_keyboard_and_seen_where_one_is(visit, real):
    page = visit(real)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    seen, unmarked = set(), []
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, marked = page.evaluate(
            """() => {
                const now = document.activeElement;
                const outer = now.closest(".chip") ?? now;
                return [now.tagName, getComputedStyle(outer).outlineStyle];
            }"""
        )
        seen.add(tag)
        if marked != "solid":
            unmarked.append(tag)
    assert {"INPUT", "SELECT", "BUTTON", "A"} <= seen and not unmarked
    box = page.locator(".chip input").first
    box.focus()
    page.keyboard.press("Space")
    assert box.is_checked() and page.locator(ROWS).count() == int(
        page.locator(".chip b").first.inner_text()
    )
    summary = page.locator("details:not([open]) > summary").first
    closed = page.locator("details:not([open])").count()
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details:not([open])").count() == closed - 1


def test_paper_shows_all_and_cuts_no_table(visit, real, tmp_path):
    page = visit(real, A4, "dark")
    page.emulate_media(media="print", color_scheme="light")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    cut = page.evaluate(
        """() => [...document.querySelectorAll("table, figure, pre, img")].filter((element) =>
            element.checkVisibility()
            && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        ).map((element) => element.id || element.tagName)"""
    )
    assert cut == [] and page.locator("details:not([open])").count() == 0
    assert page.locator(".filters .choices").is_visible() is False
    if PICTURES:
        page.pdf(path=Path(PICTURES) / "a4.pdf", format="A4", prefer_css_page_size=True)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_without_scripts_it_is_whole(visit, real):
    page = visit(real, java_script_enabled=False)
    assert page.locator(ROWS).count() == page.locator("tr.entry").count() > 0
    assert not page.locator(".needs-script:visible").count()
    assert not page.locator("button:visible").count()


def test_hostile_text_does_nothing(visit, results):
    writing.write(results)
    page = visit(results / "report.html")
    assert page.get_by_text(toy_report.NASTY.split(" | ")[0]).count() > 3
    assert page.evaluate("document.scripts.length") == 1
    for figure in (results / "figures").rglob("*.svg"):
        assert visit(figure).evaluate("document.querySelectorAll('script').length") == 0


def test_the_live_page_follows_and_leaves_the_reader_where_he_was(visit, results, monkeypatch):
    monkeypatch.setattr(watch, "CALM", 0)
    monkeypatch.setattr(watch, "LEAST", 0)
    with serving(results) as port:
        page = visit(f"http://127.0.0.1:{port}/")
        page.get_by_text("Live: drawn again").wait_for()
        facts = page.locator(".setting-of .facts")
        assert re.match("2 arms, 4 seeds", facts.inner_text())
        text = page.locator("details:not([open]) > summary").last.inner_text()
        page.locator("summary", has_text=text).click()
        page.locator(".chip").first.click()
        shown = page.locator(ROWS).count()
        page.evaluate("scrollTo(0, 400)")
        toy_report.save(results, seeds=6)
        page.get_by_text("2 arms, 6 seeds").wait_for(timeout=60_000)
        assert page.locator("details[open] > summary", has_text=text).count() == 1
        assert (
            page.locator(ROWS).count() <= shown and page.locator(".chip input").first.is_checked()
        )
        assert page.evaluate("scrollY") > 300
    page.get_by_text("run make watch again").wait_for()
    visit.trouble.clear()  # a request that fails is how the page knows of the end
    page.close()
