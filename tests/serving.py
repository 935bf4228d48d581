"""The live page, served while a block runs."""

import threading
from contextlib import contextmanager

from lab.report import watch


@contextmanager
def serving(results):
    """Serve a folder of results on a free port, which is given."""
    with watch.open_server(results, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
