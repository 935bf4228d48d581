"""The code that a function reaches, followed by name from definition to definition.

What counts of a file are the definitions that are reached: functions, classes, constants, and
statements that act when the file is imported. Each is taken as what it computes: without comments,
docstrings, annotations and layout. Where it stands and how it is imported does not count; what its
names are bound to does.
"""

import ast
import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORT = (ast.Import, ast.ImportFrom)
COMPREHENSION = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BINDING = (*FUNCTION, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.AugAssign)
ONCE = (*FUNCTION, ast.ClassDef)  # of which each definition has its own
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
class _Computed:
    """A definition: its code, what its names stand for in the order they are read, what it loads.

    A name stands for definitions of own modules or, as text, for what is of another library.
    """

    code: str
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
        self._computed = cache(self._compute)

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
            computed = self._computed(at)
            told = [computed.code]
            for name, to in computed.reads:
                if isinstance(to, tuple):
                    todo += [to, (to[0], ACTS)]
                    to = _digest(self._computed(to).code)
                told.append(f"{name} = {to}")
            todo += computed.loads
            found[at] = _digest("\n".join(told))
        return {at: digest for at, digest in found.items() if self._computed(at).code}

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
            if not isinstance(statement, ONCE):
                module.imported += self._imports(statement, name, module.lines)
            if isinstance(statement, IMPORT):
                continue
            for bound in (names := _binds(statement)):
                module.bound.setdefault(bound, []).append(statement)
            if not (names and isinstance(statement, BINDING)) and not _is_text(statement):
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

    def _compute(self, at: Definition) -> _Computed:
        module, name = self._module(at[0]), at[1]
        statements = module.acting if name == ACTS else module.bound.get(name, [])
        computed = _Computed("", [], [])
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
                computed.reads += [(said, to) for said, to, _ in targets]
                return targets[0][2] if len(targets) == 1 else dotted

            # It is taken apart; one that binds several names is asked for again.
            node = statement if isinstance(statement, ONCE) else copy.deepcopy(statement)
            taken = _Taken(self.packages, stands_for).visit(node)
            computed.code += f"{ast.unparse(taken)}\n" if taken else ""
        for _, target in loaded:
            if where := self._module_of(target)[0]:
                computed.loads.append((where, ACTS))
        return computed

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


class _Taken(ast.NodeTransformer):
    """Leaves of a statement what it computes, and asks for every name that is not local.

    Args:
        packages: The own ones: imports from these are left out.
        stands_for: Is told each name that is read, dotted as far as it is (`np.linalg.norm`), in
            order; returns what is written instead.
    """

    def __init__(self, packages: tuple[str, ...], stands_for: Callable[[str], str]):
        self.packages, self.stands_for = packages, stands_for
        self._local: frozenset[str] = frozenset()

    def visit_Import(self, node):
        node.names = [a for a in node.names if a.name.split(".")[0] not in self.packages]
        return node if node.names else None

    def visit_ImportFrom(self, node):
        own = node.level or (node.module or "").split(".")[0] in self.packages
        return None if own else node

    def visit_Name(self, node):
        return ast.Name(self._asked(node.id), node.ctx)

    def visit_Attribute(self, node):
        if not (dotted := _dotted(node)):
            return self.generic_visit(node)
        return ast.Name(self._asked(dotted), node.ctx)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):  # in a class it is a field; its type is not computed with
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_ClassDef(self, node):
        return _without_docstring(self.generic_visit(node))

    def visit_FunctionDef(self, node):
        node.returns = None
        node.decorator_list = self._all(node.decorator_list)
        self._signature(node.args)
        bound = _names(node.args) | _binds(*node.body)
        node.body = self._within(bound, lambda: self._all(_without_docstring(node).body))
        node.body = node.body or [ast.Pass()]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node):
        self._signature(node.args)
        node.body = self._within(_names(node.args), lambda: self.visit(node.body))
        return node

    def visit_comprehension_of(self, node):
        first = node.generators[0]
        first.iter = self.visit(first.iter)  # outside of its own scope
        outer, first.iter = first.iter, ast.Constant(None)
        targets = (n for g in node.generators for n in ast.walk(g.target))
        bound = {n.id for n in targets if isinstance(n, ast.Name)}
        self._within(bound, lambda: self.generic_visit(node))
        first.iter = outer
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_comprehension_of
    visit_GeneratorExp = visit_comprehension_of

    def _asked(self, dotted: str) -> str:
        return dotted if dotted.split(".")[0] in self._local else self.stands_for(dotted)

    def _all(self, nodes: list) -> list:
        return [new for node in nodes if (new := self.visit(node)) is not None]

    def _signature(self, arguments: ast.arguments) -> None:
        self.generic_visit(arguments)  # defaults are outside of the function's scope

    def _within(self, names: set[str], visit: Callable):
        before, self._local = self._local, self._local | names
        try:
            return visit()
        finally:
            self._local = before


def _without_docstring(node):
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]
    node.body = node.body or [ast.Pass()]
    return node


def _names(arguments: ast.arguments) -> set[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return {node.arg for node in (*every, arguments.vararg, arguments.kwarg) if node}


def _binds(*statements: ast.stmt) -> set[str]:
    """The names that statements bind in the scope they stand in, but for imports."""
    found: set[str] = set()
    shared: set[str] = set()
    todo: list[ast.AST] = list(statements)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                found.add(node.id)
        elif isinstance(node, ONCE):
            found.add(node.name)
        elif isinstance(node, ast.Global):
            shared.update(node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
            todo += node.body
        elif not isinstance(node, (ast.Lambda, *COMPREHENSION)):
            for part in node._fields:
                value = getattr(node, part, None)
                if isinstance(value, list):
                    todo += [one for one in value if isinstance(one, ast.AST)]
                elif isinstance(value, (ast.expr, ast.stmt)):
                    todo.append(value)
    return found - shared


def _dotted(node: ast.Attribute) -> str:
    parts = [node.attr]
    inner: ast.expr = node.value
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    return ".".join([inner.id, *reversed(parts)]) if isinstance(inner, ast.Name) else ""


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


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
