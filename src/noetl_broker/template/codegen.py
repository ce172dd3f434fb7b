"""The code generator: Jinja's, with our operators, filters and look-ups.

Jinja lays out the code and tracks names. Wherever its code would touch a Python object, this one calls a function of
`engine.PRIMITIVES`.
"""

# ruff: noqa: D102, N802, N815 - Jinja's visitor finds its methods by the names of the node classes, which say it all

from __future__ import annotations

from io import StringIO
from typing import Any, Final

from jinja2 import Environment, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.idtracking import VAR_LOAD_RESOLVE
from jinja2.nodes import EvalContext

from noetl_broker.template.grammar import LOOP_ITEMS, is_results
from noetl_broker.template.values import RESULT_PARTS

COMPARISONS: Final = {
    **{name: name for name in ("eq", "ne", "lt", "lteq", "gt", "gteq")},
    "in": "contains",
    "notin": "contains_not",
}
MAYBE_UNDEFINED: Final = (
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.CondExpr,
    nodes.Filter,
    nodes.Call,
    nodes.And,
    nodes.Or,
)


class Generator(CodeGenerator):
    """Writes the code of one template as a function `root`.

    It is a generator of texts, or (native) it returns the value of the one expression.
    """

    def __init__(self, environment: Environment, *, native: bool) -> None:
        self.code = StringIO()
        super().__init__(environment, None, None, stream=self.code, optimized=False)
        self.native = native
        self.undeclared: set[str] = set()

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        frame = Frame(EvalContext(self.environment))
        frame.symbols.analyze_node(node)
        frame.toplevel = frame.rootlevel = True
        self.writeline("def root(context, missing=missing, undefined=undefined):")
        self.indent()
        self.writeline("resolve = context.resolve_or_missing")
        if self.native:
            self.enter_frame(frame)
            self.writeline("return ")
            self.visit(_single_expression(node), frame)
        else:
            self.writeline("if 0: yield None")
            self.enter_frame(frame)
            self.blockvisit(node.body, frame)
        self.outdent()

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        loads = frame.symbols.loads.values()
        self.undeclared.update(name for action, name in loads if action == VAR_LOAD_RESOLVE and name)

    def pull_dependencies(self, _: Any) -> None:
        """Do nothing: filters and tests are globals of the code."""

    def pop_assign_tracking(self, _: Frame) -> None:
        """Nothing is exported."""
        self._assign_stack.pop()

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, _: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return str(node.as_const(frame.eval_ctx))

    def _output_child_pre(self, *_: Any) -> None:
        self.write("text(context, ")

    def _output_child_post(self, *_: Any) -> None:
        self.write(")")

    def signature(self, node: Any, frame: Frame, _: Any = None) -> None:
        for argument in node.args:
            self.write(", ")
            self._visit_value(argument, frame)
        for pair in node.kwargs:
            self.write(f", {pair.key}=")
            self._visit_value(pair.value, frame)

    def _visit_value(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, MAYBE_UNDEFINED):
            self.write("require_value(")
            self.visit(node, frame)
            self.write(")")
        else:
            self.visit(node, frame)

    def _apply(self, function: str, frame: Frame, *operands: nodes.Expr) -> None:
        self.write(f"{function}(context")
        for operand in operands:
            self.write(", ")
            self.visit(operand, frame)
        self.write(")")

    def visit_Name(self, node: nodes.Name, frame: Frame) -> None:
        shared = node.name == "results" and node.ctx == "load"
        self.write("results_as_mapping(context, " if shared else "")
        super().visit_Name(node, frame)
        self.write(")" if shared else "")

    def _visit_base(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Name):
            super().visit_Name(node, frame)
        else:
            self.visit(node, frame)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        self._visit_key(node.node, node.attr, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            nothing = nodes.Const(None)
            bounds = (node.arg.start or nothing, node.arg.stop or nothing, node.arg.step or nothing)
            self._apply("cut", frame, node.node, *bounds)
            return
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            self._visit_key(node.node, node.arg.value, frame)
            return
        self.write("item(")
        self._visit_base(node.node, frame)
        self.write(", ")
        self._visit_value(node.arg, frame)
        self.write(f", {written(node)!r})")

    def _visit_key(self, base: nodes.Expr, name: str, frame: Frame) -> None:
        path = f"{written(base)}.{name}"
        if name in RESULT_PARTS and isinstance(base, nodes.Name) and base.name != "results":
            self.write("result_part(context, ")
            self._visit_base(base, frame)
            self.write(f", {base.name!r}, {name!r}, {path!r})")
        elif name in RESULT_PARTS and isinstance(base, nodes.Getattr | nodes.Getitem) and is_results(base.node):
            self.write("results_part(")
            self._visit_base(base.node, frame)
            self.write(", ")
            if isinstance(base, nodes.Getattr):
                self.write(repr(base.attr))
            else:
                self._visit_value(base.arg, frame)
            self.write(f", {name!r}, {path!r})")
        else:
            self.write("attribute(")
            self._visit_base(base, frame)
            self.write(f", {name!r}, {path!r})")

    def visit_Call(self, node: nodes.Call, frame: Frame, *_: Any) -> None:
        called = node.node
        if isinstance(called, nodes.EnvironmentAttribute):
            self.write(f"call_{called.name}(context")
        elif isinstance(called, nodes.Getattr):
            self.write("method(context, ")
            self.visit(called.node, frame)
            self.write(f", {called.attr!r}")
        self.signature(node, frame)
        self.write(")")

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:
        if node.name == LOOP_ITEMS:
            self.write("loop_items(context, ")
            self.visit(node.args[0], frame)
            self.write(", ")
            self._visit_filtered(node, frame)
            self.write(")")
            return
        self.write("default(" if node.name in ("default", "d") else f"filter_{node.name}(context, ")
        self._visit_filtered(node, frame)
        self.signature(node, frame)
        self.write(")")

    def _visit_filtered(self, node: nodes.Filter, frame: Frame) -> None:
        if node.node is None:
            self.write(f"join_texts(context, {frame.buffer})")
        else:
            self.visit(node.node, frame)

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:
        if node.name in ("defined", "undefined"):
            self.write("(not defined(" if node.name == "undefined" else "(defined(")
            self.visit(node.node, frame)
            self.write("))")
            return
        self.write(f"tests[{node.name!r}](context, ")
        self.visit(node.node, frame)
        self.signature(node, frame)
        self.write(")")

    def visit_NSRef(self, node: nodes.NSRef, frame: Frame) -> None:
        # Jinja checks for a namespace earlier, but not in a block. Here the assignment itself is checked.
        self.writeline(f"namespace_names({frame.symbols.ref(node.name)})[{node.attr!r}]")

    def visit_AssignBlock(self, node: nodes.AssignBlock, frame: Frame) -> None:
        self.push_assign_tracking()
        block_frame = frame.inner()
        block_frame.require_output_check = False
        block_frame.symbols.analyze_node(node)
        self.enter_frame(block_frame)
        self.buffer(block_frame)
        self.blockvisit(node.body, block_frame)
        self.newline(node)
        self.visit(node.target, frame)
        self.write(" = ")
        if node.filter is not None:
            self.visit_Filter(node.filter, block_frame)
        else:
            self.write(f"join_texts(context, {block_frame.buffer})")
        self.pop_assign_tracking(frame)
        self.leave_frame(block_frame)

    def visit_CondExpr(self, node: nodes.CondExpr, frame: Frame) -> None:
        frame = frame.soft()
        self.write("(")
        self.visit(node.expr1, frame)
        self.write(" if ")
        self.visit(node.test, frame)
        self.write(" else ")
        if node.expr2 is None:
            self.write("undefined('the condition is false, and there is no `else`')")
        else:
            self.visit(node.expr2, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        if len(node.ops) == 1:
            self._apply(COMPARISONS[node.ops[0].op], frame, node.expr, node.ops[0].expr)
            return
        self.write("chain(context, ")
        self.visit(node.expr, frame)
        for operand in node.ops:
            self.write(f", {COMPARISONS[operand.op]}, ")
            self.visit(operand.expr, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._apply("concatenate", frame, *node.nodes)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        # A tuple becomes a list: to hash deeply nested tuples would overflow the interpreter's stack.
        if node.ctx == "load":
            self.visit_List(node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_List(self, node: nodes.List | nodes.Tuple, frame: Frame) -> None:
        self.write("[")
        for element in node.items:
            self._visit_value(element, frame)
            self.write(", ")
        self.write("]")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("{")
        for pair in node.items:
            self.write("key(")
            self.visit(pair.key, frame)
            self.write("): ")
            self._visit_value(pair.value, frame)
            self.write(", ")
        self.write("}")

    def _visit_logic(self, node: nodes.BinExpr, frame: Frame) -> None:
        self.write("(")
        self.visit(node.left, frame)
        self.write(f" {node.operator} ")
        self._visit_value(node.right, frame)
        self.write(")")

    def _visit_binary(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._apply(type(node).__name__.lower(), frame, node.left, node.right)

    visit_And = visit_Or = _visit_logic
    visit_Add = visit_Sub = visit_Mul = visit_Div = visit_FloorDiv = visit_Mod = _visit_binary


def _single_expression(template: nodes.Template) -> nodes.Node:
    """The expression of a native template, which `compiled.single_expression` has found."""
    return next(template.body[0].iter_child_nodes())


def written(node: nodes.Node) -> str:
    """Give an expression roughly as its author wrote it, for messages."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{written(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem):
        shown = repr(node.arg.value) if isinstance(node.arg, nodes.Const) else "…"
        return f"{written(node.node)}[{shown}]"
    return "(…)"
