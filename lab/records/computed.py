"""What a statement computes: what is left of it without comments, docstrings and annotations."""

import ast
from collections.abc import Callable

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITION = (*FUNCTION, ast.ClassDef)  # these bind one name
BINDING = (*DEFINITION, ast.Assign, ast.AnnAssign, ast.AugAssign)
IMPORT = (ast.Import, ast.ImportFrom)
COMPREHENSION = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def computed(statement: ast.stmt, packages: tuple[str, ...], stands_for: Callable[[str], str]):
    """What a statement computes, or None; the statement itself is taken apart.

    Args:
        statement: A statement of a module.
        packages: The own ones: imports from these are left out.
        stands_for: Is told each name that is read and not local, dotted as far as it is
            (`np.linalg.norm`), in order; returns what is written instead.
    """
    return _Computed(packages, stands_for).visit(statement)


class _Computed(ast.NodeTransformer):
    """Takes a statement apart; knows which names are local where it is."""

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
        bound = _names(node.args) | binds(*node.body)
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


def binds(*statements: ast.stmt) -> set[str]:
    """The names that statements bind in the scope they stand in, but for imports."""
    found: set[str] = set()
    shared: set[str] = set()
    todo: list[ast.AST] = list(statements)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                found.add(node.id)
        elif isinstance(node, DEFINITION):
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


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is nothing but a constant, such as a docstring."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
