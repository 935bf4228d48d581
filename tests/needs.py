"""That an experiment measures whatever its claims and figures are made of."""

from lab.claims.figures import Curves, Heatmap
from lab.figures import drawing
from lab.records import store
from lab.records.measured import load


def measured_in(results):
    """The one experiment and setting of a folder."""
    (measured,) = load(results, list(store.trials(results)))
    assert not measured.broken
    return measured


def assert_has_what_it_needs(experiment, measured):
    """Every contrast of every claim, and every line and cell of every figure."""
    metrics = {at for values in measured.values.values() for at in values}
    for claim in experiment.claims:
        contrasts = [claim.contrast, *claim.beside.values(), *(gate.of for gate in claim.gates)]
        for contrast in contrasts:
            assert set(contrast.needs()) <= metrics, claim.id
    for figure in experiment.figures:
        assert drawing.declared(figure, measured) is not None, figure.name
        if isinstance(figure, Curves):
            for _, arm, metric in (line for lines in figure.panels.values() for line in lines):
                points = [name for of, name in metrics if of == arm]
                assert any(name.startswith(f"{metric}@") for name in points), (arm, metric)
        if isinstance(figure, Heatmap):
            rows = (row for panel in figure.panels.values() for row in panel.values())
            for cell in (cell for row in rows for cell in row.values()):
                assert set(cell.needs()) <= metrics, figure.name
