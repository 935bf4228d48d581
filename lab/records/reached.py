"""The code that a function reaches, followed by name from definition to definition.

What counts of a file are the definitions that are reached: functions, classes, constants, and
statements that act when the file is imported. Each is taken as what it computes
(`lab.records.computed`). Where it stands and how it is imported does not count; what its
names are bound to does.
"""

import ast
import copy
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lab.records.computed import BINDING, DEFINITION, IMPORT, binds, computed, is_text

Definition = tuple[str, str]  # module and name
ACTS = ""  # the name for all that a module does when it is imported


@dataclass
class _Module:
    """A parsed file: what its names are bound to, and what it does when it is imported."""

    lines: list[str] = field(default_factory=list)
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: list[tuple[str, str]] = field(default_factory=list)  # names, and what they stand for
    acting: list[ast.stmt] = field(default_factory=list)


@dataclass
class _Code:
    """A definition: its text, what its names stand for in the order they are read, what it loads.

    A name stands for definitions of own modules or, as text, for what is of another library.
    """

    text: str
    reads: list[tuple[str, Definition | str]]
    loads: list[Definition]


class Sources:
    """The files of a project's own packages below a folder.

    Args:
        root: The folder that holds the packages.
        packages: Their names.
    """

    def __init__(self, root: Path, packages: Iterable[str]):
        self.root, self.packages = root, tuple(packages)
        self.path = cache(self._path)
        self._module = cache(self._parse)
        self._code = cache(self._read)

    def reached_from(self, roots: Iterable[Definition]) -> dict[Definition, str]:
        """Every definition that is reached, with a digest of what it computes.

        A digest does not depend on the definition's file or on the names of modules, but on what
        its names are bound to: own definitions by their code, others by where they are from.

        Args:
            roots: Modules and names to start from; the name "*" stands for all of a module.
        """
        found: dict[Definition, str] = {}
        todo = [at for root in roots for at in self._parts(*root)]
        while todo:
            at = todo.pop()
            if at in found:
                continue
            code = self._code(at)
            told = [code.text]
            for name, to in code.reads:
                if isinstance(to, tuple):
                    todo.append(to)
                    to = _digest(self._code(to).text)
                told.append(f"{name} = {to}")
            todo += code.loads
            found[at] = _digest("\n".join(told))
        return {at: digest for at, digest in found.items() if self._code(at).text}

    def _path(self, module: str) -> Path | None:
        """The file of a module of the own packages."""
        if module.split(".")[0] not in self.packages:
            return None
        base = self.root / module.replace(".", "/")
        paths = (base.with_suffix(".py"), base / "__init__.py")
        return next((path for path in paths if path.is_file()), None)

    def _parse(self, name: str) -> _Module:
        path = self.path(name)
        if path is None:
            raise ImportError(f"There is no module {name!r} below {self.root}.")
        text = path.read_text("utf-8")
        module = _Module(text.splitlines())
        for statement in ast.parse(text, str(path)).body:
            if not isinstance(statement, DEFINITION):
                module.imported += self._imports(statement, name, module.lines)
            if isinstance(statement, IMPORT):
                continue
            for bound in (names := binds(statement)):
                module.bound.setdefault(bound, []).append(statement)
            if not (names and isinstance(statement, BINDING)) and not is_text(statement):
                module.acting.append(statement)
        return module

    def _imports(self, statement: ast.stmt, where: str, lines: list[str]) -> list[tuple[str, str]]:
        """Names that imports bind, with "module:attribute"; no name for what is only loaded."""
        found: list[tuple[str, str]] = []
        # Looking at the text first saves most of the walks through functions.
        if not any("import" in line for line in lines[statement.lineno - 1 : statement.end_lineno]):
            return found
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                found += [(a.asname or "", f"{a.name}:") for a in node.names]
                whole = (a.name.split(".")[0] for a in node.names if not a.asname)
                found += [(name, f"{name}:") for name in whole]
            elif isinstance(node, ast.ImportFrom):
                base = [node.module] if node.module else []
                if node.level:
                    path, package = self.path(where), where.split(".")
                    drop = node.level - (path is not None and path.name == "__init__.py")
                    base = [*package[: len(package) - drop], *base]
                found += [(a.asname or a.name, f"{'.'.join(base)}:{a.name}") for a in node.names]
        return found

    def _read(self, at: Definition) -> _Code:
        module, name = self._module(at[0]), at[1]
        statements = module.acting if name == ACTS else module.bound.get(name, [])
        code = _Code("", [], [])
        # What a module imports acts as well, whether it is used or not.
        loaded = list(module.imported) if name == ACTS else []
        for statement in statements:
            own = self._imports(statement, at[0], module.lines)
            loaded += own

            def stands_for(dotted: str, imported=(*own, *module.imported)) -> str:
                first, *rest = dotted.split(".")
                targets: list[tuple[str, Definition | str, str]] = []
                for each in _of(first, imported):
                    targets += self._resolved(_attribute(each, rest), dotted)
                if first in module.bound and first != name:
                    targets.append((first, (at[0], first), dotted))
                code.reads += [(said, to) for said, to, _ in targets]
                return targets[0][2] if len(targets) == 1 else dotted

            # It is taken apart; one that binds several names is asked for again.
            node = statement if isinstance(statement, DEFINITION) else copy.deepcopy(statement)
            taken = computed(node, self.packages, stands_for)
            code.text += f"{ast.unparse(taken)}\n" if taken else ""
        for _, target in loaded:
            if where := self._module_of(target)[0]:
                code.loads.append((where, ACTS))
        return code

    def _module_of(self, target: str) -> tuple[str, list[str]]:
        """The own module that an import leads to, or nothing, and the attributes that follow.

        What a package binds or imports itself comes before a file of that name, as in Python.
        """
        where, _, rest = target.partition(":")
        attributes = rest.split(".") if rest else []
        if where.split(".")[0] not in self.packages:
            return "", [where, *attributes]
        while attributes and self.path(deeper := f"{where}.{attributes[0]}"):
            package = self._module(where) if self.path(where) else _Module()
            if attributes[0] in package.bound or _of(attributes[0], package.imported):
                break
            where, attributes = deeper, attributes[1:]
        return (where, attributes) if self.path(where) else ("", [where, *attributes])

    def _resolved(self, target: str, read: str) -> Iterator[tuple[str, Definition | str, str]]:
        """What an import stands for: a short name for it, the thing, and how to read it."""
        where, rest = self._module_of(target)
        if not where:
            yield read.split(".")[0], ".".join(rest[: len(rest) - read.count(".")]), read
        elif rest and rest[0] in (module := self._module(where)).bound:
            yield rest[0], (where, rest[0]), ".".join(rest)
        elif rest and (handed := _of(rest[0], module.imported)):  # what it has imported itself
            for each in handed:
                yield from self._resolved(_attribute(each, rest[1:]), read)
        else:  # the module itself is handed on, or a variable has its name: all of it may be used
            yield from ((of, (where, of), read) for _, of in self._parts(where, "*"))

    def _parts(self, module: str, name: str) -> list[Definition]:
        names = self._module(module).bound if name == "*" else [name]
        return [(module, each) for each in (ACTS, *names)]


def _of(name: str, imports: Iterable[tuple[str, str]]) -> list[str]:
    return sorted({target for alias, target in imports if alias == name})


def _attribute(target: str, names: Iterable[str]) -> str:
    """An import's "module:attribute" with further attributes.

    >>> _attribute("numpy:", ["linalg", "norm"]), _attribute("scipy:linalg", ["norm"])
    ('numpy:linalg.norm', 'scipy:linalg.norm')
    """
    module, _, attribute = target.partition(":")
    return f"{module}:{'.'.join(filter(None, [attribute, *names]))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
