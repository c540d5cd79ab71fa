"""Which small faults are put into a module: operators of Cosmic Ray, and three that a tired maintainer makes.

Cosmic Ray replaces each operator by eleven others, of which nine only raise a ``TypeError`` on numbers and flatter the
tests. Of these one or two plausible ones are taken. Docstrings and type hints, and what runs only as a script, are left
alone.
"""

import random
from dataclasses import dataclass

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators import binary_operator_replacement as binary
from cosmic_ray.operators import boolean_replacer as boolean
from cosmic_ray.operators import break_continue, exception_replacer, number_replacer, remove_decorator
from cosmic_ray.operators import comparison_operator_replacement as comparison
from cosmic_ray.operators import unary_operator_replacement as unary
from cosmic_ray.operators import zero_iteration_for_loop as loop
from cosmic_ray.operators.operator import Example, Operator

__all__ = ["OPERATORS", "Mutant", "drawn", "places"]


@dataclass(frozen=True)
class Mutant:
    """A module with one small fault: a name that finds it again, and the whole code."""

    key: str
    code: str


class DropArgument(Operator):
    """Forgets a keyword argument of a call."""

    def mutation_positions(self, node):
        """The argument."""
        if _is_keyword_argument(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        """Leave the argument out, with the comma before or behind it."""
        beside = node.parent.children
        place = beside.index(node)
        if node.parent.type == "arglist":
            comma = place - 1 if place else place + 1
            if comma < len(beside):
                beside[comma].value = beside[comma].prefix = ""
        return parso.python.tree.Name("", node.start_pos)

    @classmethod
    def examples(cls):
        """What it does."""
        return Example("f(x, y=1)", "f(x)"), Example("f(y=1, z=2)", "f( z=2)"), Example("f(y=1)", "f()")


class DropCall(Operator):
    """Forgets a call that is made for its effect: a check of an argument, a change in place."""

    def mutation_positions(self, node):
        """The call."""
        calls = node.type in ("atom_expr", "power") and node.children[-1].get_code().strip().startswith("(")
        if calls and node.parent.type in ("simple_stmt", "suite", "file_input"):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        """Do nothing in its place."""
        return parso.python.tree.Name("pass", node.start_pos, node.get_first_leaf().prefix)

    @classmethod
    def examples(cls):
        """What it does."""
        return (Example("check(x)\n", "pass\n"),)


class ForgetException(exception_replacer.ExceptionReplacer):
    """Cosmic Ray's operator for handlers, which here may name exceptions by their modules too."""

    @staticmethod
    def _name_nodes(node):
        named = node.children[1]
        if named.type == "atom":
            named = named.children[1]
        each = named.children[::2] if named.type == "testlist_comp" else [named]
        return [name.get_first_leaf() for name in each]


class LoosenTolerance(Operator):
    """Makes a small number a thousand times larger."""

    def mutation_positions(self, node):
        """The number."""
        if node.type == "number" and not node.value.endswith(("j", "J")) and 0 < float(eval(node.value)) < 0.1:
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        """The larger number."""
        return parso.python.tree.Number(repr(1000 * float(node.value)), node.start_pos, node.prefix)

    @classmethod
    def examples(cls):
        """What it does."""
        return (Example("x < 0.002", "x < 2.0"),)


BINARY = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "FloorDiv_Div", "FloorDiv_Mul", "Mod_FloorDiv")
BINARY += ("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr", "LShift_RShift", "RShift_LShift", "Mul_Pow")
COMPARISON = ("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt")
COMPARISON += ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")
UNARY = ("Delete_USub", "Delete_Not", "Delete_Invert")

OPERATORS = {
    **{name: getattr(binary, f"ReplaceBinaryOperator_{name}") for name in BINARY},
    **{name: getattr(comparison, f"ReplaceComparisonOperator_{name}") for name in COMPARISON},
    **{name: getattr(unary, f"ReplaceUnaryOperator_{name}") for name in UNARY},
    **{
        operator.__name__: operator
        for operator in (
            boolean.AddNot,
            boolean.ReplaceTrueWithFalse,
            boolean.ReplaceFalseWithTrue,
            boolean.ReplaceAndWithOr,
            boolean.ReplaceOrWithAnd,
            break_continue.ReplaceBreakWithContinue,
            break_continue.ReplaceContinueWithBreak,
            ForgetException,
            number_replacer.NumberReplacer,
            remove_decorator.RemoveDecorator,
            loop.ZeroIterationForLoop,
            DropArgument,
            DropCall,
            LoosenTolerance,
        )
    },
}


def places(code):
    """Each place at which an operator has something to change, as the operator's name and a number."""
    nodes = list(ast_nodes(get_ast(code)))
    passed_over = {id(node) for node in nodes if _is_no_code(node)}
    for name, operator in OPERATORS.items():
        number = 0
        for node in nodes:
            for _ in operator().mutation_positions(node):
                if not passed_over & {id(around) for around in _around(node)}:
                    yield name, number
                number += 1


def drawn(code, seed):
    """The mutants of a module in an order that a seed has drawn, so that the first ones are a sample.

    One that is no Python, or the same program, is left out.
    """
    order = list(places(code))
    random.Random(seed).shuffle(order)
    unchanged = compile(code, "", "exec", dont_inherit=True)
    for name, number in order:
        changed = mutate_code(code, OPERATORS[name](), number)
        try:
            program = compile(changed, "", "exec", dont_inherit=True)
        except SyntaxError:
            continue
        if program != unchanged:
            yield Mutant(f"{name}:{number}", changed)


def _is_keyword_argument(node):
    return (
        node.type == "argument"
        and node.children[0].type == "name"
        and len(node.children) == 3
        and node.children[1].type == "operator"
        and node.children[1].value == "="
        and node.parent.type in ("arglist", "trailer")
    )


def _around(node):
    while node is not None:
        yield node
        node = node.parent


def _is_no_code(node):
    """Whether a node is a type hint, an overload, a mark in a list of parameters, or what runs only as a script."""
    parent = node.parent
    if parent is None:
        return False
    before = parent.children[parent.children.index(node) - 1] if parent.children[0] is not node else None
    if parent.type in ("annassign", "tfpdef") and getattr(before, "value", None) == ":":
        return True
    if parent.type == "funcdef" and getattr(before, "value", None) == "->":
        return True
    if parent.type == "parameters" and node.type == "operator":
        return True
    if node.type == "decorated" and node.children[0].get_code().strip() == "@overload":
        return True
    return node.type == "if_stmt" and node.get_code().lstrip().startswith("if __name__ ==")
