//! What the database can hold, column by column. A column that is not listed here fails the test, and so does
//! one of text or bytes that would take a flow, a DNS name or a remote address.

use sqlx::Row;

use super::Store;

/// What a column is for, and so what it must refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// A number: a time, a count, a position.
    Number,
    /// 32 bytes: a key, a hash, a salt.
    Id,
    /// Letters, digits, `-` and `_`, or one of a list: no dot and no colon, so no name or address.
    Word,
    /// A network of ours with its prefix length: 5 or 17 bytes.
    Network,
    /// What somebody signed, or this server logged: a lease, a revocation, a checkpoint, a proposal, an offer.
    Statement,
}

use Class::{Id, Network, Number, Statement, Word};

const COLUMNS: &[(&str, &[(&str, Class)])] = &[
    (
        "alert",
        &[
            ("kind", Word),
            ("claim_pub", Id),
            ("devid_hash", Id),
            ("times", Number),
            ("first_at", Number),
            ("last_at", Number),
        ],
    ),
    ("authority_state", &[("epoch", Number), ("leaf", Number)]),
    (
        "claim",
        &[
            ("claim_pub", Id),
            ("slot", Word),
            ("pop", Word),
            ("created_at", Number),
            ("expires_at", Number),
            ("devid_hash", Id),
            ("spent_at", Number),
            ("limit_down", Number),
            ("limit_up", Number),
        ],
    ),
    (
        "device",
        &[
            ("devid_hash", Id),
            ("devid_pub", Id),
            ("slot", Word),
            ("pop", Word),
            ("shard", Number),
            ("pool_offset", Number),
            ("epoch", Number),
            ("enrolled_at", Number),
            ("revoked_at", Number),
            ("revoked_reason", Number),
            ("limit_down", Number),
            ("limit_up", Number),
        ],
    ),
    (
        "gateway",
        &[
            ("gateway_id", Id),
            ("name", Word),
            ("pop", Word),
            ("leaf", Number),
            ("added_at", Number),
        ],
    ),
    ("gateway_shard", &[("shard", Number), ("gateway_id", Id)]),
    (
        "kem_statement",
        &[
            ("gateway_id", Id),
            ("statement", Statement),
            ("not_after", Number),
        ],
    ),
    (
        "lease",
        &[
            ("devid_hash", Id),
            ("epoch", Number),
            ("wg_pub", Id),
            ("statement", Statement),
            ("salt", Id),
            ("leaf", Number),
            ("issued_at", Number),
            ("not_after", Number),
        ],
    ),
    (
        "log_entry",
        &[("log", Number), ("idx", Number), ("entry", Statement)],
    ),
    (
        "log_head",
        &[
            ("log", Number),
            ("size", Number),
            ("stamp", Number),
            ("statement", Statement),
        ],
    ),
    (
        "log_next",
        &[
            ("log", Number),
            ("size", Number),
            ("stamp", Number),
            ("statement", Statement),
        ],
    ),
    (
        "log_node",
        &[
            ("log", Number),
            ("level", Number),
            ("idx", Number),
            ("hash", Id),
        ],
    ),
    (
        "pool",
        &[
            ("pop", Word),
            ("shard", Number),
            ("net_v4", Network),
            ("net_v6", Network),
        ],
    ),
    (
        "proposal",
        &[
            ("leaf", Number),
            ("proposal_id", Id),
            ("proof", Statement),
            ("activation", Statement),
        ],
    ),
    (
        "psk_offer",
        &[
            ("gateway_id", Id),
            ("devid_hash", Id),
            ("shard", Number),
            ("seq", Number),
            ("statement", Statement),
        ],
    ),
    (
        "revocation",
        &[
            ("devid_hash", Id),
            ("statement", Statement),
            ("salt", Id),
            ("leaf", Number),
        ],
    ),
    (
        "server",
        &[("id", Number), ("name", Word), ("created_at", Number)],
    ),
    (
        "shard_entry",
        &[
            ("shard", Number),
            ("seq", Number),
            ("kind", Number),
            ("leaf", Number),
        ],
    ),
    (
        "witness",
        &[
            ("log", Number),
            ("witness_pub", Id),
            ("size", Number),
            ("cosigned_at", Number),
            ("problem", Word),
            ("problem_at", Number),
        ],
    ),
];

async fn store() -> (tempfile::TempDir, Store) {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::create(scratch.path(), "office", 1).await.unwrap();
    (scratch, store)
}

#[tokio::test]
async fn every_column_is_known_and_has_the_type_of_its_class() {
    let (_scratch, store) = store().await;
    let mut db = store.read().await.unwrap();
    let rows = sqlx::query(
        "SELECT m.name AS \"table\", m.sql, c.name AS \"column\", c.type
         FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations'
         ORDER BY m.name, c.cid",
    );
    let rows = rows.fetch_all(&mut *db).await.unwrap();

    let mut found = Vec::new();
    for row in &rows {
        let (table, column): (String, String) = (row.get("table"), row.get("column"));
        let (sql, declared): (String, String) = (row.get("sql"), row.get("type"));
        assert!(sql.contains("STRICT"), "{table} takes any type");
        found.push((table, column, declared));
    }
    let listed: Vec<(String, String, String)> = COLUMNS
        .iter()
        .flat_map(|(table, columns)| columns.iter().map(move |column| (*table, *column)))
        .map(|(table, (column, class))| {
            let declared = match class {
                Number => "INTEGER",
                Id | Network | Statement => "BLOB",
                Word => "TEXT",
            };
            (table.to_owned(), column.to_owned(), declared.to_owned())
        })
        .collect();
    assert_eq!(found, listed);
}

/// The part of a table's definition that constrains one column.
fn definition<'a>(sql: &'a str, column: &str) -> &'a str {
    let line = |line: &&str| line.trim_start().starts_with(&format!("{column} "));
    sql.lines().find(line).unwrap()
}

#[tokio::test]
async fn no_column_can_hold_a_flow_a_dns_name_or_a_remote_address() {
    let (_scratch, store) = store().await;
    let mut db = store.read().await.unwrap();
    for (table, columns) in COLUMNS {
        let sql: String = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = ?")
            .bind(*table)
            .fetch_one(&mut *db)
            .await
            .unwrap();
        // Numbers and statements take what they are.
        let texts = |class: Class| !matches!(class, Number | Statement);
        for (column, class) in columns.iter().filter(|(_, class)| texts(*class)) {
            let definition = definition(&sql, column);
            let refuses = match class {
                Number | Statement => false,
                Id => definition.contains(&format!("CHECK (length({column}) = 32)")),
                Network => definition.contains(&format!("CHECK (length({column}) = ")),
                Word => {
                    definition.contains(&format!("{column} NOT GLOB '*[^A-Za-z0-9_-]*'"))
                        || definition.contains(&format!("CHECK ({column} IN ("))
                }
            };
            assert!(refuses, "{table}.{column} takes anything: {definition}");
        }
    }
}

#[tokio::test]
async fn a_name_or_an_address_in_a_slot_is_refused_by_the_database_itself() {
    let (_scratch, store) = store().await;
    let mut writer = store.writer().await.unwrap();
    for wrong in [
        "www.example.org",
        "203.0.113.7",
        "2001:db8::1",
        "a b",
        "",
        "anna@x",
    ] {
        let mut db = writer.begin().await.unwrap();
        let insert = sqlx::query(
            "INSERT INTO claim (claim_pub, slot, pop, created_at, expires_at) VALUES (?, ?, 'pop1', 1, 2)",
        );

        let refused = insert
            .bind(&[7; 32][..])
            .bind(wrong)
            .execute(&mut *db)
            .await;

        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("CHECK constraint failed"),
            "{wrong:?}: {error}"
        );
    }
}

#[tokio::test]
async fn logs_and_streams_take_no_change_and_no_removal() {
    let (_scratch, store) = store().await;
    let mut writer = store.writer().await.unwrap();
    let mut db = writer.begin().await.unwrap();
    for prepare in [
        "INSERT INTO log_entry (log, idx, entry) VALUES (1, 0, x'00')",
        "INSERT INTO log_node (log, level, idx, hash) VALUES (1, 0, 0, zeroblob(32))",
        "INSERT INTO log_head (log, size, stamp, statement) VALUES (1, 1, 9, x'00')",
        "INSERT INTO log_next (log, size, stamp, statement) VALUES (1, 2, 9, x'00')",
        "INSERT INTO shard_entry (shard, seq, kind, leaf) VALUES (1, 0, 0, 0)",
    ] {
        sqlx::query(prepare).execute(&mut *db).await.unwrap();
    }

    for wrong in [
        "UPDATE log_entry SET entry = x'01'",
        "DELETE FROM log_entry",
        "UPDATE log_node SET hash = zeroblob(32)",
        "DELETE FROM log_node",
        "UPDATE log_head SET size = 0",
        "UPDATE log_head SET stamp = 8",
        "UPDATE log_next SET size = 1",
        "UPDATE log_next SET stamp = 8",
        "UPDATE shard_entry SET leaf = 1",
        "DELETE FROM shard_entry",
    ] {
        let error = sqlx::query(wrong)
            .execute(&mut *db)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("append only") || error.contains("only grows"),
            "{wrong}: {error}"
        );
    }
}
