"""`make watch`: the report's page on this machine's own address, drawn anew as trials land."""

import errno
import hashlib
import http.server
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from lab.claims.discovery import UsageError
from lab.records import store
from lab.report import page, writing

HOST, PORT = "127.0.0.1", 8765
# After a drawing of so many seconds the next one waits ten times as long: what is watched must
# not be slowed by being watched. And never more often than this.
CALM, LEAST = 10, 2.0


class Live:
    """The page of a folder that is being written to.

    Args:
        results: The folder.
        clock: Seconds that only go forward.
    """

    def __init__(self, results: Path, clock: Callable[[], float] = time.monotonic):
        self.results, self.clock = results, clock
        self._lock = threading.Lock()
        self._version = self._text = ""
        self._rest_until = clock()
        self._pictures: dict[tuple, tuple[object, list]] = {}

    def version(self) -> str:
        """Changes when there is something new to be shown, and not before it may be drawn."""
        with self._lock:
            if self.clock() < self._rest_until:
                return self._version
            return self._present()

    def text(self) -> str:
        """The page as of now."""
        with self._lock:
            began = self.clock()
            version = self._version if began < self._rest_until else self._present()
            if version != self._version:
                keys = list(store.trials(self.results))
                sections = writing.gather(self.results, keys, self._drawn)
                committed = writing.reference(self.results)
                strangers = writing.left_out(self.results, keys)
                self._text = page.render(sections, committed, strangers, live=version)
                self._version = version
                ended = self.clock()
                self._rest_until = ended + max(LEAST, CALM * (ended - began))
            return self._text

    def _present(self) -> str:
        digest = hashlib.sha256()
        for key in store.trials(self.results):
            try:
                state = store.paths(self.results, key)[0].stat()
            except OSError:
                continue  # gone since it was listed
            digest.update(f"{key.path} {state.st_size} {state.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def _drawn(self, results: Path, experiment, measured, verdicts) -> list:
        """The figures of a section; those of the last drawing if its trials are the same."""
        where = (measured.experiment, measured.setting)
        trials = {at: manifest.get("sha256") for at, manifest in measured.manifests.items()}
        if self._pictures.get(where, (None,))[0] != trials:
            pictures = writing.drawn(results, experiment, measured, verdicts)
            for picture in pictures:
                del picture["figure"]
            self._pictures[where] = trials, pictures
        return self._pictures[where][1]


def serve(results: Path, port: int | None) -> int:
    """Serve until Ctrl-C. Returns the exit status.

    Args:
        results: The folder of the results; it may be empty, or not there yet.
        port: None: the usual one, or another if that is taken.
    """
    with open_server(results, port) as server:
        print(
            f"Live page: http://{HOST}:{server.server_port}/ (this machine only; Ctrl-C ends it)",
            flush=True,
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nEnded. What is running goes on.")
    return 0


def open_server(results: Path, port: int | None) -> http.server.ThreadingHTTPServer:
    """A server that listens.

    Raises:
        UsageError: If the port that was asked for is taken, or not for everybody.
    """
    live = Live(results)

    class Handler(_Handler):
        page = live

    try:
        return http.server.ThreadingHTTPServer((HOST, PORT if port is None else port), Handler)
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return http.server.ThreadingHTTPServer((HOST, 0), Handler)
        raise UsageError(f"PORT={port} cannot be used ({error.strerror}): give another.") from error


class _Handler(http.server.BaseHTTPRequestHandler):
    page: Live
    server: http.server.ThreadingHTTPServer

    def do_GET(self) -> None:
        port = self.server.server_port
        # A page elsewhere that has its own name point here must not read what is shown.
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._answer(HTTPStatus.FORBIDDEN, "Not under this name.\n")
            return
        asked = {"/": (self.page.text, "html"), "/version": (self.page.version, "plain")}
        if self.path not in asked:
            self._answer(HTTPStatus.NOT_FOUND, "There is only the page itself.\n")
            return
        make, kind = asked[self.path]
        try:
            self._answer(HTTPStatus.OK, make(), kind)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reader has gone
        except Exception as error:  # say it where it is looked at, and go on serving
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"The page failed: {error!r}\n")

    def _answer(self, status: HTTPStatus, text: str, kind: str = "plain") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Nothing: that a page asks for news is no news."""
