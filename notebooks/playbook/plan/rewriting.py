"""The plan's SQL with the target's names: identifiers are located by the parser and only their spans are replaced.

Names are read as PostgreSQL reads them: inner queries before outer ones, a common table expression hides a table,
GROUP BY looks at input columns before output names and ORDER BY the other way round. A relation whose name changes
keeps the plan's as its alias, so that whatever refers to it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from sqlglot import exp

from playbook.errors import Ambiguous, NotFound, PlanError
from playbook.plan import nodes
from playbook.plan.columns import Columns
from playbook.plan.edits import Edits
from playbook.plan.parsing import Parsed, meant, parse_select, span
from playbook.plan.scopes import Output, Outputs, Resolver, Scope, Source
from playbook.target.sql import quote

_SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema"})


def rewrite(sql: str, names: Resolver, *, keep_names: bool = False) -> str:
    """A SELECT with the target's names; see `Names.rewrite`."""
    rewriting = _Rewriting(parse_select(sql), names)
    return rewriting.run(lambda tree: rewriting.query(tree, Scope(), keep_names))


def rewrite_expression(sql: str, relation: str, names: Resolver) -> str:
    """An expression over the columns of one relation, unqualified; see `Names.rewrite_expression`."""
    head = "SELECT ("
    try:
        parsed = replace(parse_select(f"{head}{sql}\n)"), hidden=len(head))
        item, *more = parsed.tree.expressions
    except PlanError:
        raise PlanError(f"{sql!r} is not an expression that can be parsed") from None
    if more or not isinstance(item, exp.Paren) or any(v for k, v in parsed.tree.args.items() if k != "expressions"):
        raise PlanError(f"{sql!r} is not one expression")
    table = names.relation(relation)
    alias = relation.rpartition(".")[2].strip('"')
    scope = Scope(sources=[Source(alias, "", Outputs.of(relation, table))])
    rewriting = _Rewriting(parsed, names, unqualified=True)
    return rewriting.run(lambda _: rewriting.walk(item, scope))[len(head) : -len("\n)")]


class _Rewriting:
    """One statement being rewritten: goes through its tree as PostgreSQL's analyser would, and notes edits."""

    def __init__(self, parsed: Parsed, names: Resolver, *, unqualified: bool = False) -> None:
        self._parsed = parsed
        self._names = names
        self._edits = Edits(parsed)
        self._columns = Columns(self._edits, names, unqualified=unqualified)
        self._relations: dict[str, Outputs] = {}

    def run(self, read: Callable[[exp.Expression], object]) -> str:
        """Lets `read` go through the tree and makes the edits.

        Raises:
            PlanError: a name was not understood, so that it might be left as it is by mistake.
        """
        try:
            read(self._parsed.tree)
        except RecursionError:
            raise PlanError("the statement is nested too deeply to be rewritten") from None
        self._check_all_understood()
        return self._edits.apply()

    # Queries

    def query(self, node: exp.Expression, outer: Scope, keep: bool = False) -> Outputs:
        """A SELECT, a set operation or either in parentheses; with `keep` its columns keep the plan's names."""
        scope = self._with(node, outer)
        match node:
            case exp.Select():
                return self._select(node, scope, keep)
            case exp.SetOperation():
                outputs = self.query(node.this, scope, keep)
                self.query(node.expression, scope)
            case exp.Subquery():
                outputs = self.query(node.this, scope, keep)
            case exp.Values():
                return self._values(node, scope)
            case _:
                raise PlanError(f"{type(node).__name__.upper()} cannot stand in a SELECT that only reads")
        self._after(node, scope, outputs)
        return outputs

    def _with(self, node: exp.Expression, outer: Scope) -> Scope:
        """A new scope that knows the common table expressions of `node`."""
        scope = Scope(outer)
        clause = node.args.get("with_")
        for cte in clause.expressions if clause else ():
            name, columns, body = meant(cte.args["alias"].this), nodes.alias_columns(cte), cte.this
            if clause.args.get("recursive") and isinstance(body, exp.SetOperation):
                inner = self._with(body, scope)
                outputs = self.query(body.this, inner, True).renamed(columns)
                inner.ctes[name] = outputs
                self.query(body.expression, inner)
                self._after(body, inner, outputs)
            else:
                outputs = self.query(body, scope, True).renamed(columns)
            searches = clause.args.get("search") is not None  # which adds columns of its own
            scope.ctes[name] = outputs + Outputs(opaque=searches)
        return scope

    def _select(self, node: exp.Select, scope: Scope, keep: bool) -> Outputs:
        if (clause := node.args.get("from_")) is not None:
            self._from(clause.this, node.args.get("joins") or (), scope)
        outputs = Outputs()
        for item in node.expressions:
            outputs += self._item_of_list(item, scope, keep)
        for key, part in node.args.items():
            if key == "group" and part is not None:
                self._group_by(part, scope, outputs)
            elif key == "order" and part is not None:
                self._order_by((ordered.this for ordered in part.expressions), scope, outputs)
            elif key == "distinct" and part is not None and part.args.get("on") is not None:
                on = part.args["on"].unnest()
                self._order_by(on.expressions if isinstance(on, exp.Tuple) else (on,), scope, outputs)
            elif key not in {"with_", "from_", "joins", "expressions"}:
                self._walk_all(part, scope)
        return outputs

    def _values(self, node: exp.Values, scope: Scope) -> Outputs:
        self._walk_all(node.expressions, scope)
        width = len(node.expressions[0].expressions) if node.expressions else 0
        return Outputs.named([f"column{number}" for number in range(1, width + 1)])

    def _after(self, node: exp.Expression, scope: Scope, outputs: Outputs) -> None:
        """ORDER BY, LIMIT and OFFSET after a set operation or parentheses, where only output names are seen."""
        if (order := node.args.get("order")) is not None:
            self._order_by((o.this for o in order.expressions), Scope(sources=[Source("", "", outputs)]), outputs)
        self._walk_all((node.args.get("limit"), node.args.get("offset")), scope)

    # FROM

    def _from(self, first: exp.Expression, joins: Iterable[exp.Join], scope: Scope) -> None:
        start = 0
        self._item(first, scope)
        for join in joins:
            if not any(join.args.get(key) for key in ("kind", "side", "method", "on", "using")):
                start = len(scope.sources)  # after a comma, conditions do not see what stands before it
            middle = len(scope.sources)
            self._item(join.this, scope)
            left, right = scope.sources[start:middle], scope.sources[middle:]
            if join.method == "NATURAL":
                self._natural(left, right, scope)
            for identifier in join.args.get("using") or ():
                self._using(identifier, left, right, scope)
            self._walk_all(join.args.get("on"), Scope(scope.outer, scope.ctes, left + right, scope.merged))

    def _item(self, node: exp.Expression, scope: Scope) -> None:
        """One item of a FROM; it becomes a source of `scope`."""
        alias, columns = nodes.alias(node), nodes.alias_columns(node)
        match node:
            case exp.Table(this=exp.Identifier()):
                scope.sources.append(self._table(node, scope))
                return
            case exp.Lateral(this=exp.Subquery() as inner):
                outputs = self.query(inner, scope, True)
            case exp.Table() | exp.Unnest() | exp.Lateral():
                outputs = self._function(node, scope)
            case exp.Subquery() if nodes.is_join_tree(node):
                nested = Scope(scope.outer, scope.ctes, [], scope.merged)
                self._from(node.this, [*nodes.joins(node.this), *nodes.joins(node)], nested)
                if alias is None:
                    scope.sources += nested.sources
                    return
                outputs = nested.outputs()
            case exp.Subquery() | exp.Values():
                # Without LATERAL it sees the queries around this one, and this one's common table expressions only.
                outputs = self.query(node, Scope(scope.outer, scope.ctes), True)
            case _:
                raise PlanError(f"{type(node).__name__.upper()} cannot stand in a FROM")
        name, qualifier = (meant(alias), self._edits.text(alias)) if alias is not None else ("", "")
        scope.sources.append(Source(name, qualifier, outputs.renamed(columns)))

    def _function(self, node: exp.Expression, scope: Scope) -> Outputs:
        """A function in FROM: its column bears its alias, unless it returns rows, whose columns are not known here."""
        for key, part in node.args.items():
            if key != "alias":
                self._walk_all(part, scope)
        alias, listed = nodes.alias(node), bool(nodes.alias_columns(node))
        return Outputs.named([meant(alias)] if alias is not None and not listed else (), opaque=not listed)

    def _table(self, node: exp.Table, scope: Scope) -> Source:
        self._columns.placed.add(id(node))
        self._walk_all(node.args.get("sample"), scope)
        if node.args.get("catalog") is not None:
            raise PlanError(f"{self._edits.place(node.this)}: a relation is written NAME or SCHEMA.NAME")
        name, schema = meant(node.this), meant(node.args["db"]) if node.args.get("db") else None
        alias = nodes.alias(node) or node.this
        moved = False
        if schema is None and (outputs := scope.cte(name)) is not None:
            pass
        elif schema in _SYSTEM_SCHEMAS or (schema is None and name.startswith("pg_")):
            outputs = Outputs(opaque=True)
        else:
            outputs, moved = self._relation(node, name, schema, scope)
        outputs = outputs.renamed(nodes.alias_columns(node))
        return Source(meant(alias), self._edits.text(alias), outputs, moved)

    def _relation(self, node: exp.Table, name: str, schema: str | None, scope: Scope) -> tuple[Outputs, bool]:
        """A relation of the target: its columns, and whether its name was replaced."""
        relation = ".".join(spelt(part) for part in (schema, name) if part)
        with self._columns.located(node.this):
            table = self._names.relation(relation)
        hidden = scope.cte(table.name) is not None or not self._names.is_visible(table)
        outputs = self._relations[relation] = Outputs.of(relation, table)
        if table.name == name and (schema == table.schema if schema else not hidden):
            return outputs, False
        replacement = quote(table.schema, table.name) if schema or hidden else quote(table.name)
        if table.name != name and nodes.alias(node) is None:
            replacement += f" AS {self._edits.text(node.this)}"
        self._edits.replace(span(node.args.get("db") or node.this)[0], span(node.this)[1], replacement)
        return outputs, True

    def _using(self, node: exp.Identifier, left: Collection[Source], right: Collection[Source], scope: Scope) -> None:
        """USING has one name for the columns of both sides, so they have to bear one name on the target too."""
        name = meant(node)
        finals = []
        for side in (left, right):
            with self._columns.located(node):
                found = {source.outputs.find(name, self._names) for source in side} - {None}
            if not found and not any(source.outputs.opaque for source in side):
                raise NotFound(f"{self._edits.place(node)}: {self._columns.no_column(Scope(sources=list(side)), name)}")
            finals += sorted(final for final in found if final)
        if len(set(finals)) > 1:
            both = " and ".join(quote(final) for final in dict.fromkeys(finals))
            raise PlanError(f"{self._edits.place(node)}: USING ({name}) would join {both}; write the join with ON")
        for final in finals[:1]:
            scope.merged.add(final)
            self._edits.rename(node, final)

    def _natural(self, left: Collection[Source], right: Collection[Source], scope: Scope) -> None:
        """NATURAL joins by what the columns are called, which has to be the same pairs on the target."""
        for these, those in ((left, right), (right, left)):
            theirs = sum((source.outputs for source in those), Outputs())
            for output in (output for source in these for output in source.outputs.columns):
                if theirs.has(output.name):
                    scope.merged.add(output.name)
                elif output.plan and (other := theirs.find(output.plan, self._names)) is not None:
                    pair = f"{quote(output.name)} and {quote(other)}"
                    raise PlanError(f"NATURAL JOIN would no longer join {pair}; write the join with ON")

    # The select list, GROUP BY and ORDER BY

    def _item_of_list(self, item: exp.Expression, scope: Scope, keep: bool) -> Outputs:
        match item:
            case exp.Star():
                return scope.outputs()
            case exp.Column(this=exp.Star()):
                source = self.walk(item, scope)
                return source.outputs if source else Outputs(opaque=True)
            case exp.Alias():
                self.walk(item.this, scope)
                return Outputs.named([meant(item.args["alias"])])
            case exp.Subquery():
                return Outputs(self.query(item, scope, keep).columns[:1])
        return self._item_without_alias(item, scope, keep)

    def _item_without_alias(self, item: exp.Expression, scope: Scope, keep: bool) -> Outputs:
        """An item that PostgreSQL finds a name for: that of its column, else one that only it knows."""
        self.walk(item, scope)
        if (column := nodes.naming_column(item)) is None:
            return Outputs((Output(""),), opaque=not isinstance(item, exp.Literal))
        plan = meant(column.this)
        final = self._columns.final.get(id(column), plan)
        if keep and final != plan:
            self._edits.keep_name(column)
            final = plan
        return Outputs((Output(final, plan),))

    def _group_by(self, node: exp.Group, scope: Scope, outputs: Outputs) -> None:
        """A bare name is an input column if there is one, else an output name, which stays as it is."""
        names = {output.plan for output in outputs.columns}
        for column in node.find_all(exp.Column):
            if nodes.is_bare(column) and nodes.stands_alone(column, node) and meant(column.this) in names:
                with self._columns.located(column.this):
                    hit = scope.local().resolve(meant(column.this), self._names)
                if hit is None:
                    self._stays(column, scope)
        self._walk_all(list(node.iter_expressions()), scope)

    def _stays(self, column: exp.Column, scope: Scope) -> None:
        """An output name in GROUP BY, which a column that only the target has must not be taken for."""
        if any(source.outputs.has(meant(column.this)) for source in scope.sources):
            name = f"{self._edits.place(column.this)}: {meant(column.this)}"
            raise Ambiguous(f"{name} is an output name, and on the target a column too; rename the output")
        self._columns.placed.add(id(column))

    def _order_by(self, keys: Iterable[exp.Expression], scope: Scope, outputs: Outputs) -> None:
        """A bare name (in DISTINCT ON too) is an output name if there is one, else an input column."""
        taken = frozenset(output.name for output in outputs.columns)
        for key in keys:
            if not nodes.is_bare(key):
                self.walk(key, scope)
                continue
            with self._columns.located(key.this):
                found = outputs.candidates(meant(key.this), self._names)
            if found:
                self._columns.placed.add(id(key))
                self._edits.rename(key.this, min(found))  # two of them are the same, else PostgreSQL would refuse
            else:
                self._columns.place(key, scope, taken=taken, opaque=outputs.opaque)

    # Expressions

    def walk(self, node: exp.Expression, scope: Scope) -> Source | None:
        """Places every name in an expression; returns a source where the expression is its whole row."""
        match node:
            case exp.Column():
                return None if id(node) in self._columns.placed else self._columns.place(node, scope)
            case exp.Query():
                self.query(node, scope)
            case exp.Paren():
                return self.walk(node.this, scope)
            case exp.Collate():
                self.walk(node.this, scope)
                self._columns.placed |= {id(column) for column in node.expression.find_all(exp.Column)}
            case exp.Dot(expression=exp.Identifier() as field):
                if (row := self.walk(node.this, scope)) is not None:
                    self._columns.field(row, field)
            case _:
                self._walk_all(list(node.iter_expressions()), scope)
        return None

    def _walk_all(self, part: object, scope: Scope) -> None:
        for node in part if isinstance(part, (list, tuple)) else (part,):
            if isinstance(node, exp.Expression):
                self.walk(node, scope)

    # Errors

    def _check_all_understood(self) -> None:
        """What the walk did not come by, or the parser took for a keyword, must not be left as it is silently."""
        for node in self._parsed.tree.find_all(exp.Column, exp.Table):
            if id(node) not in self._columns.placed and isinstance(node.this, exp.Identifier):
                raise PlanError(f"{self._edits.place(node.this)}: {node.this.name} cannot be placed here")
        located = {span(each)[0] for each in self._parsed.tree.find_all(exp.Identifier) if "start" in each.meta}
        for before, token, after in nodes.triples(self._parsed.tokens):
            if token.start in located or not nodes.may_be_a_name(before, token, after):
                continue
            if self._would_change(token.text):
                where = self._parsed.place(token.start)
                raise PlanError(f"{where}: {token.text} cannot be placed here; qualify it with its relation")

    def _would_change(self, name: str) -> bool:
        origins = {output.origin for outputs in self._relations.values() for output in outputs.columns}
        found = (self._names.find_column(each.relation, each.table, name) for each in origins if each)
        return any(column is not None and column.name != name for column in found)


def spelt(part: str) -> str:
    """A part of a relation's name as mappings spell it."""
    return '"' + part.replace('"', '""') + '"' if "." in part or '"' in part else part
