//! Which migrations are allowed: only additive ones, so that the version before keeps working after them: during a swap both run, and a rollback must stay
//! possible. Checked with a SQL parser, in both dialects; a statement that is not known to be additive is refused. Knows no backend.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use sqlparser::ast::{
    AlterTable, AlterTableOperation, AssignmentTarget, ColumnDef, ColumnOption, CreateIndex, CreateTable, Expr, GeneratedAs, Insert,
    ObjectName, ObjectType, SetExpr, Statement, TableConstraint, TableFactor, TableObject, Update, Visit, visit_expressions,
};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;

use super::whitelist::is_postgres_function;
use super::{MigrateError, Migration, sqlite};
use echo_base::limits;

/// Checks all migrations, of both dialects. Errors: for each migration the first statement that is not known to be additive.
pub fn check(migrations: &[Migration]) -> Result<(), Vec<String>> {
    let reasons: Vec<String> = migrations
        .iter()
        .filter_map(|migration| {
            let reason = match migration.is_backfill() {
                true => Backfill::of(migration, migrations).err()?,
                false => check_one(migration).err()?,
            };
            Some(MigrateError::NotAdditive { name: migration.name.clone(), reason }.to_string())
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Errors: the first statement that is not known to be additive.
pub fn check_one(migration: &Migration) -> Result<(), String> {
    let mut made = BTreeSet::new();
    for statement in parse(migration)? {
        checks_at_once(&statement)?;
        adds(&statement, &mut made)?;
        only_known_functions(&statement, &migration.dialect)?;
    }
    Ok(())
}

fn parse(migration: &Migration) -> Result<Vec<Statement>, String> {
    let dialect: &dyn Dialect = match migration.dialect.as_str() {
        "sqlite" => &SQLiteDialect {},
        "postgres" => &PostgreSqlDialect {},
        other => return Err(format!("there is no dialect {other}")),
    };
    if migration.sql.len() > limits::SQL_MIGRATION_BYTES_MAX {
        return Err(format!("it is longer than {} bytes", limits::SQL_MIGRATION_BYTES_MAX));
    }
    Parser::parse_sql(dialect, &migration.sql).map_err(|error| error.to_string())
}

/// One `UPDATE` of rows that are there, for columns that the migration of the same name added: run in batches while the version that has these columns
/// is live. It fills in what is null and nothing else, so that it can be interrupted and started again, and never overwrites what the service has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// `0001_accounts.backfill`.
    pub name: String,
    /// As it is written.
    pub sql: String,
    pub table: String,
    /// `colour = 'red', size = length(name)`.
    pub assignments: String,
    /// Names of the columns that are set.
    pub columns: Vec<String>,
    /// What stands behind `WHERE`.
    pub condition: Option<String>,
}

impl Backfill {
    /// Errors: what it is that this is not; `all` has the migration that it belongs to.
    pub fn of(backfill: &Migration, all: &[Migration]) -> Result<Self, String> {
        let base = backfill.name.strip_suffix(Migration::BACKFILL).unwrap_or_default();
        let Some(base) = all.iter().find(|migration| migration.name == base && migration.dialect == backfill.dialect) else {
            return Err("a back-fill has the number and name of the migration that adds its columns".to_owned());
        };
        let statements = parse(backfill)?;
        let [Statement::Update(update)] = statements.as_slice() else {
            return Err("a back-fill is one UPDATE and nothing else".to_owned());
        };
        only_known_functions(&statements[0], &backfill.dialect)?;
        let table = only_a_table(update)?;
        let added = fillable_columns(base, &table)?;
        let mut columns = Vec::new();
        for assignment in &update.assignments {
            let column = match &assignment.target {
                AssignmentTarget::ColumnName(name) => own_name(name)?,
                AssignmentTarget::Tuple(_) => return Err("a back-fill sets columns one by one".to_owned()),
            };
            if !added.contains(&column) {
                return Err(format!(
                    "a back-fill sets only columns that {} adds to {table}, which may be null and have no DEFAULT: {column} is none of them",
                    base.name
                ));
            }
            columns.push(column);
        }
        let assignments: Vec<String> = update.assignments.iter().map(ToString::to_string).collect();
        Ok(Self {
            name: backfill.name.clone(),
            sql: backfill.sql.clone(),
            table,
            assignments: assignments.join(", "),
            columns,
            condition: update.selection.as_ref().map(ToString::to_string),
        })
    }
}

fn only_a_table(update: &Update) -> Result<String, String> {
    // Everything else that the parser knows of an UPDATE is refused, field by field.
    let is_plain = update.from.is_none()
        && update.returning.is_none()
        && update.output.is_none()
        && update.or.is_none()
        && update.order_by.is_empty()
        && update.limit.is_none()
        && update.optimizer_hints.is_empty()
        && update.table.joins.is_empty();
    match &update.table.relation {
        TableFactor::Table { name, alias: None, args: None, .. } if is_plain && update.table.to_string() == name.to_string() => {
            own_name(name)
        }
        _ => Err("a back-fill is UPDATE table SET … WHERE …, no more: the host takes the rows in batches".to_owned()),
    }
}

/// Columns that the migration adds to a table and that are null in the rows that are there.
fn fillable_columns(migration: &Migration, table: &str) -> Result<BTreeSet<String>, String> {
    let mut columns = BTreeSet::new();
    for statement in parse(migration)? {
        let Statement::AlterTable(altered) = statement else { continue };
        if own_name(&altered.name)? != table {
            continue;
        }
        for operation in &altered.operations {
            let AlterTableOperation::AddColumn { column_def, .. } = operation else { continue };
            let is_null = column_def.options.iter().all(|option| match &option.option {
                ColumnOption::NotNull => false,
                ColumnOption::Default(value) => is_null(value),
                _ => true,
            });
            if is_null {
                columns.insert(column_def.name.value.to_ascii_lowercase());
            }
        }
    }
    Ok(columns)
}

/// A deferred constraint is checked at the commit, and would fail it for all transactions of the group.
fn checks_at_once(statement: &Statement) -> Result<(), String> {
    let columns = match statement {
        Statement::CreateTable(table) => table.columns.iter().collect(),
        Statement::AlterTable(table) => {
            let added = table.operations.iter().filter_map(|operation| match operation {
                AlterTableOperation::AddColumn { column_def, .. } => Some(column_def),
                _ => None,
            });
            added.collect()
        }
        _ => Vec::new(),
    };
    let of_table = match statement {
        Statement::CreateTable(table) => table.constraints.as_slice(),
        _ => &[],
    };
    let of_columns = columns.into_iter().flat_map(|column| &column.options).filter_map(|option| match &option.option {
        ColumnOption::ForeignKey(key) => key.characteristics.as_ref(),
        ColumnOption::PrimaryKey(key) => key.characteristics.as_ref(),
        ColumnOption::Unique(unique) => unique.characteristics.as_ref(),
        _ => None,
    });
    let of_table = of_table.iter().filter_map(|constraint| match constraint {
        TableConstraint::ForeignKey(key) => key.characteristics.as_ref(),
        TableConstraint::PrimaryKey(key) => key.characteristics.as_ref(),
        TableConstraint::Unique(unique) => unique.characteristics.as_ref(),
        _ => None,
    });
    match of_columns.chain(of_table).next() {
        Some(deferred) => Err(format!("{deferred}: a constraint is checked with each statement, not at the commit")),
        None => Ok(()),
    }
}

/// `made`: the tables that the migration has made so far.
fn adds(statement: &Statement, made: &mut BTreeSet<String>) -> Result<(), String> {
    match statement {
        Statement::CreateTable(table) => new_table(table, made),
        Statement::CreateIndex(index) => new_index(index, made),
        Statement::AlterTable(table) => new_columns(table),
        Statement::Insert(insert) => first_rows(insert, made),
        Statement::Drop { object_type: ObjectType::Table, names, .. } => Err(format!(
            "DROP TABLE {} takes away what the running version uses",
            names.first().map(ToString::to_string).unwrap_or_default()
        )),
        Statement::Update(_) | Statement::Delete(_) => Err(format!(
            "{:.60}: a migration changes no rows; new columns are filled in by NNNN_name.backfill.<dialect>.sql, or by the service as it comes by their rows",
            statement.to_string()
        )),
        other => Err(format!("{:.60}: only new tables, columns and indexes are known to add", other.to_string())),
    }
}

fn new_table(table: &CreateTable, made: &mut BTreeSet<String>) -> Result<(), String> {
    let name = own_name(&table.name)?;
    // Everything else that the parser knows of a table is refused, field by field.
    let known = CreateTableBuilder::new(table.name.clone())
        .columns(table.columns.clone())
        .constraints(table.constraints.clone())
        .without_rowid(table.without_rowid)
        .strict(table.strict)
        .build();
    if known != *table {
        return Err(format!("CREATE TABLE {name}: columns and constraints, no more (no IF NOT EXISTS, no TEMPORARY, no AS SELECT)"));
    }
    for column in &table.columns {
        for option in &column.options {
            match &option.option {
                ColumnOption::Null
                | ColumnOption::NotNull
                | ColumnOption::Default(_)
                | ColumnOption::PrimaryKey(_)
                | ColumnOption::Unique(_)
                | ColumnOption::ForeignKey(_)
                | ColumnOption::Check(_)
                | ColumnOption::Collation(_) => {}
                ColumnOption::DialectSpecific(tokens)
                    if tokens.iter().all(|token| token.to_string().eq_ignore_ascii_case("AUTOINCREMENT")) => {}
                ColumnOption::Generated { generated_as: GeneratedAs::Always | GeneratedAs::ByDefault, generation_expr: None, .. } => {}
                other => return Err(format!("CREATE TABLE {name}: column {}: {other} is not known to be harmless", column.name)),
            }
        }
    }
    for constraint in &table.constraints {
        match constraint {
            TableConstraint::Unique(_) | TableConstraint::PrimaryKey(_) | TableConstraint::ForeignKey(_) | TableConstraint::Check(_) => {}
            other => return Err(format!("CREATE TABLE {name}: {other} is not known to be harmless")),
        }
    }
    made.insert(name);
    Ok(())
}

fn new_index(index: &CreateIndex, made: &BTreeSet<String>) -> Result<(), String> {
    let Some(index_name) = &index.name else { return Err("an index needs a name".to_owned()) };
    let (index_name, table) = (own_name(index_name)?, own_name(&index.table_name)?);
    let is_plain = index.columns.iter().all(|column| {
        let expression = match &column.column.expr {
            Expr::Collate { expr, .. } => expr.as_ref(),
            expr => expr,
        };
        matches!(expression, Expr::Identifier(_)) && column.operator_class.is_none() && column.column.with_fill.is_none()
    });
    if !is_plain {
        return Err(format!("index {index_name}: an index of columns is known to add, one of expressions could refuse rows"));
    }
    let known = CreateIndex {
        name: index.name.clone(),
        table_name: index.table_name.clone(),
        using: None,
        columns: index.columns.clone(),
        unique: index.unique,
        concurrently: false,
        if_not_exists: index.if_not_exists,
        include: Vec::new(),
        nulls_distinct: None,
        with: Vec::new(),
        predicate: index.predicate.clone(),
        index_options: Vec::new(),
        alter_options: Vec::new(),
    };
    if known != *index {
        return Err(format!("index {index_name}: columns and WHERE, no more"));
    }
    if index.unique && !made.contains(&table) {
        return Err(format!(
            "the unique index {index_name} could refuse rows of {table} that are there, or that the running version writes; unique is for tables of the same migration"
        ));
    }
    Ok(())
}

fn new_columns(table: &AlterTable) -> Result<(), String> {
    let name = own_name(&table.name)?;
    if table.if_exists || table.only || table.location.is_some() || table.on_cluster.is_some() || table.table_type.is_some() {
        return Err(format!("ALTER TABLE {name}: ADD COLUMN, no more"));
    }
    for operation in &table.operations {
        match operation {
            AlterTableOperation::AddColumn { column_def, if_not_exists: false, column_position: None, .. } => {
                new_column(&name, column_def)?
            }
            AlterTableOperation::RenameTable { .. } | AlterTableOperation::RenameColumn { .. } => {
                return Err(format!("RENAME takes away what the running version uses ({name})"));
            }
            AlterTableOperation::DropColumn { .. } => return Err(format!("DROP COLUMN takes away what the running version uses ({name})")),
            other => return Err(format!("ALTER TABLE {name} may only ADD a COLUMN: {other}")),
        }
    }
    Ok(())
}

fn new_column(table: &str, column: &ColumnDef) -> Result<(), String> {
    let what = format!("ALTER TABLE {table} ADD COLUMN {}", column.name);
    let (mut is_not_null, mut has_default, mut refers) = (false, false, false);
    for option in &column.options {
        match &option.option {
            ColumnOption::Null | ColumnOption::Check(_) | ColumnOption::Collation(_) => {}
            ColumnOption::NotNull => is_not_null = true,
            ColumnOption::ForeignKey(_) => refers = true,
            ColumnOption::Default(value) => has_default = !is_null(value),
            other => return Err(format!("{what}: {other} could refuse what the running version writes")),
        }
    }
    if is_not_null && !has_default {
        return Err(format!("{what}: a NOT NULL column needs a DEFAULT, as the running version does not write it"));
    }
    if refers && has_default {
        return Err(format!("{what}: a column that refers to another table has no DEFAULT, which could refer to nothing"));
    }
    Ok(())
}

fn is_null(value: &Expr) -> bool {
    matches!(value, Expr::Value(value) if matches!(value.value, sqlparser::ast::Value::Null))
}

/// Rows of a table that is as new as they are.
fn first_rows(insert: &Insert, made: &BTreeSet<String>) -> Result<(), String> {
    let TableObject::TableName(name) = &insert.table else { return Err("INSERT names its table".to_owned()) };
    let name = own_name(name)?;
    let is_values = insert.source.as_ref().is_some_and(|query| matches!(*query.body, SetExpr::Values(_)) && query.with.is_none());
    if !made.contains(&name) || !is_values || insert.or.is_some() || insert.replace_into || insert.on.is_some() {
        return Err(format!("INSERT INTO {name}: first rows are VALUES for a table of the same migration"));
    }
    Ok(())
}

/// A name without a schema, as the service's own tables have; in lower case, as both dialects compare it.
fn own_name(name: &ObjectName) -> Result<String, String> {
    let [part] = name.0.as_slice() else { return Err(format!("{name}: a table is named without a schema")) };
    let Some(ident) = part.as_ident() else { return Err(format!("{name} is no plain name")) };
    let lower = ident.value.to_ascii_lowercase();
    if ["_echo_", "sqlite_", "pg_", "pragma_"].iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(format!("the name {name} is the host's"));
    }
    Ok(lower)
}

/// In defaults, checks and conditions: the functions that services have, and no query.
fn only_known_functions(statement: &Statement, dialect: &str) -> Result<(), String> {
    let is_service_function = if dialect == "postgres" { is_postgres_function } else { sqlite::is_service_function };
    expressions(statement, |expression| match expression {
        Expr::Function(function) => match function.name.0.as_slice() {
            [part] if part.as_ident().is_some_and(|ident| is_service_function(&ident.value)) => Ok(()),
            _ => Err(format!("the function {} is not for services", function.name)),
        },
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => Err(format!("a query has no place here: {expression}")),
        _ => Ok(()),
    })
}

fn expressions(of: &impl Visit, mut check: impl FnMut(&Expr) -> Result<(), String>) -> Result<(), String> {
    let outcome = visit_expressions(of, |expression| match check(expression) {
        Ok(()) => ControlFlow::Continue(()),
        Err(reason) => ControlFlow::Break(reason),
    });
    match outcome {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(dialect: &str, sql: &str) -> Migration {
        Migration { name: "0001_x".to_owned(), dialect: dialect.to_owned(), sql: sql.to_owned() }
    }

    #[test]
    fn additive_steps_pass() {
        for (dialect, sql) in [
            (
                "sqlite",
                "CREATE TABLE a (id TEXT PRIMARY KEY, b TEXT NOT NULL DEFAULT 'x' CHECK (b IN ('x', 'y'))) WITHOUT ROWID; CREATE UNIQUE INDEX i ON a (b);",
            ),
            (
                "sqlite",
                "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, b REFERENCES c (id) ON DELETE CASCADE, UNIQUE (id, b)) STRICT",
            ),
            ("sqlite", "ALTER TABLE a ADD COLUMN c TEXT; ALTER TABLE a ADD d INTEGER NOT NULL DEFAULT 0 CHECK (d >= 0); -- DROP TABLE a\n"),
            ("sqlite", "CREATE INDEX i ON a (b COLLATE NOCASE, c DESC) WHERE b IS NOT NULL AND length(c) > 3"),
            ("sqlite", "CREATE TABLE kinds (name TEXT PRIMARY KEY); INSERT INTO kinds (name) VALUES ('a'), ('b')"),
            (
                "postgres",
                "CREATE TABLE a (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b UUID NOT NULL, c JSONB, d TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP)",
            ),
            ("postgres", "ALTER TABLE a ADD COLUMN c BOOLEAN NOT NULL DEFAULT FALSE; CREATE INDEX i ON a (c)"),
        ] {
            assert_eq!(check(&[migration(dialect, sql)]), Ok(()), "{sql}");
        }
    }

    #[test]
    fn what_is_not_known_to_add_is_refused() {
        for (sql, expect) in [
            ("CREATE TABLE b (id TEXT); DROP TABLE a", "DROP TABLE"),
            ("ALTER TABLE a DROP COLUMN b", "DROP COLUMN"),
            ("ALTER TABLE a RENAME TO b", "RENAME"),
            ("ALTER TABLE a RENAME COLUMN b TO c", "RENAME"),
            ("ALTER TABLE a ADD COLUMN c TEXT NOT NULL", "DEFAULT"),
            ("ALTER TABLE a ADD COLUMN c TEXT NOT NULL DEFAULT NULL", "DEFAULT"),
            ("ALTER TABLE a ADD COLUMN c TEXT UNIQUE", "UNIQUE"),
            ("DELETE FROM a", "changes no rows"),
            ("UPDATE a SET b = 1", "changes no rows"),
            ("INSERT INTO a (b) VALUES (1)", "same migration"),
            ("INSERT OR REPLACE INTO a (b) VALUES (1)", "same migration"),
            ("REPLACE INTO a (b) VALUES (1)", "same migration"),
            ("CREATE TABLE b (c TEXT); INSERT INTO b SELECT c FROM a", "same migration"),
            ("WITH x AS (SELECT 1) DELETE FROM a", "only new tables"),
            ("CREATE UNIQUE INDEX i ON a (b)", "unique index i"),
            ("CREATE TABLE IF NOT EXISTS a (b TEXT); CREATE UNIQUE INDEX i ON a (b)", "IF NOT EXISTS"),
            ("CREATE INDEX i ON a (lower(b))", "expressions"),
            ("CREATE INDEX i ON a (b) WHERE instr(b, 'x') > 0", "instr"),
            ("CREATE TRIGGER g AFTER INSERT ON a BEGIN DELETE FROM a; END", ""),
            ("CREATE VIEW v AS SELECT 1", "only new tables"),
            ("CREATE VIRTUAL TABLE v USING fts5(a)", "only new tables"),
            ("CREATE TEMP TABLE x (a TEXT)", "TEMPORARY"),
            ("CREATE TABLE x AS SELECT * FROM a", "AS SELECT"),
            ("CREATE TABLE x (a TEXT CHECK (hex(a) = 'x'))", "hex"),
            ("CREATE TABLE x (a TEXT DEFAULT (randomblob(9)))", "randomblob"),
            ("CREATE TABLE x (a TEXT, b TEXT GENERATED ALWAYS AS (upper(a)) STORED)", "column b"),
            ("DROP INDEX i", "only new tables"),
            ("PRAGMA foreign_keys = 0", "only new tables"),
            ("COMMIT", "only new tables"),
            ("ATTACH 'x' AS y", ""),
            ("CREATE TABLE _echo_outbox (a TEXT)", "the host's"),
            ("CREATE TABLE \"_ECHO_outbox\" (a TEXT)", "the host's"),
            ("CREATE TABLE main.a (a TEXT)", "without a schema"),
            ("CREATE TABLE x (a TEXT REFERENCES y (a) DEFERRABLE INITIALLY DEFERRED)", "at the commit"),
            ("CREATE TABLE x (a TEXT, FOREIGN KEY (a) REFERENCES y (a) DEFERRABLE INITIALLY DEFERRED)", "at the commit"),
            ("ALTER TABLE x ADD COLUMN b TEXT REFERENCES y (a) DEFERRABLE", "at the commit"),
            ("ALTER TABLE sqlite_master ADD COLUMN a TEXT", "the host's"),
            ("SELEC 1", ""),
        ] {
            let reasons = check(&[migration("sqlite", sql)]).expect_err(sql);
            assert!(reasons[0].contains(expect) && reasons[0].contains("0001_x"), "{sql}: {reasons:?}");
        }
        for (sql, expect) in [
            ("CREATE INDEX CONCURRENTLY i ON a (b)", "no more"),
            ("ALTER TABLE a ALTER COLUMN b SET NOT NULL", "ADD a COLUMN"),
            ("ALTER TABLE a ADD COLUMN b BIGSERIAL PRIMARY KEY", "PRIMARY KEY"),
            ("TRUNCATE a", "only new tables"),
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "only new tables"),
            ("CREATE TABLE a (b TEXT DEFAULT pg_sleep(1))", "pg_sleep"),
            ("GRANT ALL ON a TO b", "only new tables"),
        ] {
            let reasons = check(&[migration("postgres", sql)]).expect_err(sql);
            assert!(reasons[0].contains(expect), "{sql}: {reasons:?}");
        }
        assert!(check(&[migration("mysql", "CREATE TABLE a (b TEXT)")]).is_err());
    }

    #[test]
    fn all_wrong_ones_are_named() {
        let wrong =
            [migration("sqlite", "DROP TABLE a"), migration("sqlite", "CREATE TABLE b (c TEXT)"), migration("postgres", "TRUNCATE a")];
        assert_eq!(check(&wrong).expect_err("two of three").len(), 2);
    }

    fn backfill_of(sql: &str, base: &str) -> Result<Backfill, String> {
        let base = migration("sqlite", base);
        let backfill = Migration { name: "0001_x.backfill".to_owned(), ..migration("sqlite", sql) };
        Backfill::of(&backfill, &[base, backfill.clone()])
    }

    const BASE: &str = "ALTER TABLE a ADD COLUMN c TEXT; ALTER TABLE a ADD COLUMN d INTEGER CHECK (d > 0); \
        ALTER TABLE a ADD COLUMN e TEXT NOT NULL DEFAULT 'x'; ALTER TABLE b ADD COLUMN f TEXT";

    #[test]
    fn a_backfill_is_one_update_of_columns_that_its_migration_adds() {
        let sql = "UPDATE a SET c = lower(name), d = length(name) + 1 WHERE name IS NOT NULL;";
        let found = backfill_of(sql, BASE).expect("it passes");
        assert_eq!((found.table.as_str(), found.columns.as_slice()), ("a", ["c".to_owned(), "d".to_owned()].as_slice()));
        assert_eq!(found.assignments, "c = lower(name), d = length(name) + 1");
        assert_eq!(found.condition.as_deref(), Some("name IS NOT NULL"));
        assert_eq!(backfill_of("UPDATE b SET f = 'x'", BASE).expect("it passes").condition, None);
        for (sql, expect) in [
            ("UPDATE a SET name = 'x'", "name is none of them"),
            ("UPDATE a SET c = 'x', name = 'x'", "name is none of them"),
            ("UPDATE a SET e = 'x'", "e is none of them"),
            ("UPDATE a SET f = 'x'", "f is none of them"),
            ("UPDATE a SET (c, d) = ('x', 1)", ""),
            ("DELETE FROM a", "one UPDATE"),
            ("UPDATE a SET c = 'x'; DELETE FROM a", "one UPDATE"),
            ("UPDATE a SET c = 'x'; UPDATE b SET f = 'x'", "one UPDATE"),
            ("INSERT INTO a (c) VALUES ('x')", "one UPDATE"),
            ("", "one UPDATE"),
            ("UPDATE OR REPLACE a SET c = 'x'", "no more"),
            ("UPDATE a SET c = b.f FROM b", "no more"),
            ("UPDATE a AS x SET c = 'x'", "no more"),
            ("UPDATE a SET c = 'x' RETURNING c", "no more"),
            ("UPDATE main.a SET c = 'x'", "without a schema"),
            ("UPDATE _echo_outbox SET c = 'x'", "the host's"),
            ("UPDATE a SET c = (SELECT f FROM b)", "a query has no place"),
            ("UPDATE a SET c = 'x' WHERE EXISTS (SELECT 1 FROM b)", "a query has no place"),
            ("UPDATE a SET c = hex(name)", "the function hex"),
        ] {
            let reason = backfill_of(sql, BASE).expect_err(sql);
            assert!(reason.contains(expect), "{sql}: {reason}");
        }
        let alone = Migration { name: "0002_y.backfill".to_owned(), ..migration("sqlite", "UPDATE a SET c = 'x'") };
        let reasons = check(&[migration("sqlite", BASE), alone]).expect_err("it belongs to none");
        assert!(reasons[0].contains("number and name"), "{reasons:?}");
    }

    #[test]
    fn the_services_own_migrations_pass() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../migrations");
        let mut count = 0;
        for service in std::fs::read_dir(root).expect("the folder of migrations") {
            let mut all = Vec::new();
            for file in std::fs::read_dir(service.expect("a service").path()).expect("its folder") {
                let path = file.expect("a migration").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                let (name, dialect) = name.trim_end_matches(".sql").rsplit_once('.').expect("a dialect");
                let sql = std::fs::read_to_string(&path).expect("readable");
                all.push(Migration { name: name.to_owned(), dialect: dialect.to_owned(), sql });
            }
            assert_eq!(check(&all), Ok(()));
            count += all.len();
        }
        assert!(count >= 10, "only {count} were looked at");
    }
}
