//! The database: one SQLite file, one writer at a time, readers beside it. Who may write what, and when a
//! write counts, is said here; each noun's rows live in a file of `store/`.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};

use crate::failure::{Blame, Failure};

pub mod alerts;
pub mod claims;
pub mod devices;
pub mod gateways;
pub mod leases;
mod limits;
pub mod pools;
pub mod proposals;
pub mod psk;
pub mod stream;
pub mod witnesses;

#[cfg(test)]
mod schema_test;

/// The database's file in the data directory.
pub const FILE: &str = "culvert.db";
/// Longer than any transaction of ours; a command line and the server wait for each other.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_READERS: u32 = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// 32 bytes that name something: a key, its hash, a salt.
pub type Id = [u8; 32];

/// The database of one data directory.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    readers: SqlitePool,
}

impl Store {
    /// Makes the file, readable by its owner only, and its tables.
    pub async fn create(dir: &Path, name: &str, now: u64) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let store = Self::open(dir).await?;
        let mut writer = store.writer().await?;
        sqlx::query("INSERT INTO server (id, name, created_at) VALUES (1, ?, ?)")
            .bind(name)
            .bind(signed(now)?)
            .execute(&mut writer.connection)
            .await?;
        writer.connection.close().await?;
        Ok(store)
    }

    /// Opens a file that `init` made and brings its tables up to date.
    pub async fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        match fs::OpenOptions::new().read(true).write(true).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sentence = format!(
                    "{} is not a data directory; make one with `provisioning --data-dir {} init`",
                    dir.display(),
                    dir.display()
                );
                return Err(Failure::new(Blame::Config, sentence).into());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        }
        let mut writer = connect(&path).await?;
        MIGRATIONS
            .run(&mut writer)
            .await
            .with_context(|| format!("cannot bring {} up to date", path.display()))?;
        writer.close().await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(MAX_READERS)
            .connect_lazy_with(options(&path).pragma("query_only", "ON"));
        Ok(Self { path, readers })
    }

    /// Opens the connection that writes. The server holds one; a command line holds one while it runs.
    pub async fn writer(&self) -> anyhow::Result<Writer> {
        Writer::open(&self.path).await
    }

    /// A snapshot to read from.
    pub async fn read(&self) -> anyhow::Result<Transaction<'static, Sqlite>> {
        Ok(self.readers.begin().await?)
    }

    /// A connection of its own, for [`data_version`].
    pub(crate) async fn watcher(&self) -> anyhow::Result<SqliteConnection> {
        Ok(options(&self.path)
            .pragma("query_only", "ON")
            .connect()
            .await?)
    }
}

/// Changes whenever another connection, of whichever process, has committed.
pub(crate) async fn data_version(connection: &mut SqliteConnection) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(connection)
        .await?)
}

/// The connection that writes.
#[derive(Debug)]
pub struct Writer {
    connection: SqliteConnection,
    path: PathBuf,
}

impl Writer {
    async fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            connection: connect(path).await?,
            path: path.to_owned(),
        })
    }

    /// Begins a transaction that already holds the write lock: what it reads stays true until it commits.
    pub async fn begin(&mut self) -> anyhow::Result<Transaction<'_, Sqlite>> {
        // On a full disk SQLite ends a transaction by itself, and sqlx goes on counting it as open: only a new
        // connection begins at nothing.
        if self.connection.is_in_transaction() {
            self.connection = connect(&self.path).await?;
        }
        Ok(self.connection.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// The name that this server was given.
pub async fn server_name(db: &mut SqliteConnection) -> anyhow::Result<String> {
    Ok(sqlx::query_scalar("SELECT name FROM server")
        .fetch_one(db)
        .await?)
}

/// Whether a text is an opaque word: letters, digits, `-` and `_`, so never an address or a DNS name.
pub fn is_word(text: &str, max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}

async fn connect(path: &Path) -> anyhow::Result<SqliteConnection> {
    options(path)
        .connect()
        .await
        .with_context(|| format!("cannot open the database {}", path.display()))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// SQLite's integers are signed; none of ours comes near the sign bit.
pub(crate) fn signed(value: u64) -> anyhow::Result<i64> {
    i64::try_from(value).context("a number is too large for the database")
}

pub(crate) fn unsigned(value: i64) -> anyhow::Result<u64> {
    u64::try_from(value).context("the database holds a negative number where none can be")
}

pub(crate) fn id(bytes: &[u8]) -> anyhow::Result<Id> {
    Id::try_from(bytes).context("the database holds an id that is not 32 bytes long")
}
