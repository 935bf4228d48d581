"""The live page: new when trials landed, calm, and for this machine only."""

import dataclasses
import html
import http.client

import pytest

from lab.claims.discovery import UsageError
from lab.records import store
from lab.report import page, watch, writing
from tests import toy_report
from tests.serving import serving
from tests.toy_report import SETTING


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def get(results):
    with serving(results) as port:

        def get(path, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read().decode()

        yield get


def test_it_is_the_page_of_the_report_and_says_when_there_is_news(results):
    clock = Clock()
    live = watch.Live(results, clock)
    version = live.version()
    text = live.text()
    assert f'data-version="{version}"' in text and live.version() == version
    sections = writing.gather(results, list(store.trials(results)), writing.drawn)
    assert text == page.render(sections, writing.reference(results), live=version)
    writing.write(results)
    ours = (results / "report.html").read_text("utf-8")
    assert text.split("<main")[1].split("</main>")[0] == ours.split("<main")[1].split("</main>")[0]

    clock.now += 100
    toy_report.save(results, seeds=5)
    assert live.version() != version
    assert "2 arms, 5 seeds" in live.text() and f'data-version="{live.version()}"' in live.text()


def test_it_does_not_draw_all_the_time(results, monkeypatch):
    clock = Clock()
    live = watch.Live(results, clock)

    def slowly(*_):
        clock.now += 3
        return []

    monkeypatch.setattr(writing, "gather", slowly)
    live.text()
    version = live.version()
    toy_report.save(results, seeds=5)
    clock.now += 3 * watch.CALM - 1
    assert live.version() == version
    clock.now += 2
    assert live.version() != version


def test_figures_are_drawn_again_only_where_trials_changed(results, monkeypatch):
    other = dataclasses.replace(SETTING, data="mnist1d")
    toy_report.save(results, setting=other)
    drawn = []

    def draw(results, experiment, measured, verdicts):
        drawn.append(measured.setting.data)
        return []

    monkeypatch.setattr(writing, "drawn", draw)
    clock = Clock()
    live = watch.Live(results, clock)
    live.text()
    clock.now += 1000
    toy_report.save(results, setting=other, seeds=5)
    live.text()
    assert drawn == ["digits", "mnist1d", "mnist1d"]


def test_only_this_machine_is_answered_and_only_the_page_is_served(get):
    answer, text = get("/")
    assert answer.status == 200 and "connect-src 'self'" in html.unescape(text)
    assert answer.headers["Cache-Control"] == "no-store"
    assert get("/version")[1] in text
    for path in ("/report.html", "/../README.md", "/toy.csv", "/version?x"):
        assert get(path)[0].status == 404
    assert get("/", Host="attacker.example")[0].status == 403


def test_what_fails_is_said_and_the_next_page_is_served(get, monkeypatch):

    def broken(*_):
        raise ValueError("an experiment cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr(writing, "gather", broken)
        answer, text = get("/")
        assert answer.status == 500 and "cannot be read" in text
    assert get("/")[0].status == 200


def test_a_taken_port_is_said_if_asked_for_and_replaced_if_not(results, monkeypatch):
    with watch.open_server(results, 0) as first:
        assert first.server_address[0] == "127.0.0.1"
        taken = first.server_port
        with pytest.raises(UsageError, match=f"PORT={taken} cannot be used .*another"):
            watch.open_server(results, taken)
        monkeypatch.setattr(watch, "PORT", taken)
        with watch.open_server(results, None) as second:
            assert second.server_port not in (0, taken)
