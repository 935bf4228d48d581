"""Executes `tour.ipynb` and saves its outputs: `make tour`."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_suffix(".ipynb")


def execute(path: Path) -> None:
    """Run the notebook at `path` in this folder, and save in it what came out.

    Nothing is kept of when it ran, and on what.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        timeout=300,  # seconds for each cell
        coalesce_streams=True,
        record_timing=False,
        # What TensorFlow's libraries say of this machine stays on the terminal.
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    ).execute()
    notebook.metadata.language_info = {"name": "python"}  # without the version
    nbformat.write(notebook, path)


if __name__ == "__main__":
    execute(Path(sys.argv[1]) if sys.argv[1:] else NOTEBOOK)
