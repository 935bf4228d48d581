"""`--one-of-each`, with which `make test` tries things on JAX, leaves no test out."""

from types import SimpleNamespace

from tests import conftest


def kept(*names, asked=True):
    deselected = []
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    config = SimpleNamespace(getoption=lambda name: asked, hook=hook)
    items = [SimpleNamespace(nodeid=name) for name in names]
    every = list(items)
    conftest.pytest_collection_modifyitems(config, items)
    assert {id(item) for item in items + deselected} == {id(item) for item in every}
    return [item.nodeid for item in items]


def test_of_each_test_the_first_case_is_kept():
    names = ["a.py::one[x]", "a.py::one[y]", "a.py::two", "b.py::one[z]", "b.py::one[x-a.py::two]"]
    assert kept(*names) == ["a.py::one[x]", "a.py::two", "b.py::one[z]"]


def test_without_it_all_are_kept():
    assert kept("a.py::one[x]", "a.py::one[y]", asked=False) == ["a.py::one[x]", "a.py::one[y]"]
