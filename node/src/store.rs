//! The state folder: what a node must not lose.
//!
//! - `identity.key`: the 32 secret bytes in hexadecimal, mode 0600.
//! - `charter.toml`: the charter that this folder belongs to.
//! - `ledger.redb`: messages by step, author and payload; the last states.
//! - `private.safetensors`: the node's own projections and what rounding has kept back (written by the trainer).
//! - `events.jsonl`: the event log ([`crate::events`]).
//!
//! A file is written under another name, synced and renamed; the ledger is a database with atomic commits. A node
//! killed at any instant finds the state before or after its last write, never between.

use anyhow::{Context as _, Result, bail};
use heterotune_crypto::Identity;
use heterotune_protocol::{
    charter::Charter,
    limits,
    message::{Message, Step},
    round::{Checkpoint, Saved},
    wire,
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// (0 kernels, 1 statistics, or 1 + round; author and payload digest) -> envelope.
const MESSAGES: TableDefinition<'_, (u64, &[u8]), &[u8]> = TableDefinition::new("messages");

/// Round -> the state before it.
const CHECKPOINTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("checkpoints");

/// The largest stored state: every value of the largest mixture as a 9-byte CBOR integer, and the evidence.
const CHECKPOINT_BYTES_MAX: usize = 9 * limits::MIXTURE_VALUES_MAX + 64 * limits::FOUNDERS_MAX + 4_096;

/// A node's state folder, open. Only one process can hold it.
pub struct Store {
    folder: PathBuf,
    ledger: Database,
}

/// Something to keep.
#[derive(Debug)]
pub enum Record {
    /// A message of the ledger.
    Message(Arc<Message>),
    /// A message of the ledger that is to go.
    Forget(Arc<Message>),
    /// A state, and the first round whose messages are still needed.
    Checkpoint(Arc<Checkpoint>, u64),
}

impl Store {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// One sentence on what cannot be read or written, or that another process has it.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the state folder {}", folder.display()))?;
        let path = folder.join("ledger.redb");
        let ledger = Database::create(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                anyhow::anyhow!(
                    "the state folder {} is in use by another node; give this one a --state of its own",
                    folder.display()
                )
            }
            error => anyhow::anyhow!(
                "cannot open {}: {error}; restore it from a backup or move it away to start anew",
                path.display()
            ),
        })?;
        Ok(Self { folder: folder.to_path_buf(), ledger })
    }

    /// The folder's identity; a new one the first time.
    ///
    /// # Errors
    /// A key file that cannot be read or written, or is not one.
    pub fn identity(&self) -> Result<Identity> {
        let path = self.folder.join("identity.key");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let digest: heterotune_crypto::Digest = text.trim().parse().ok().with_context(|| {
                    format!("{} is not a key file (64 hexadecimal digits); restore it from a backup", path.display())
                })?;
                Ok(Identity::from_secret(*digest.as_bytes()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0u8; 32];
                getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness for a key: {error}"))?;
                let identity = Identity::from_secret(secret);
                self.adopt(&identity)?;
                Ok(identity)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Makes `identity` the folder's own.
    ///
    /// # Errors
    /// A folder that has another one, or cannot be written.
    pub fn adopt(&self, identity: &Identity) -> Result<()> {
        let path = self.folder.join("identity.key");
        if path.exists() {
            if self.identity()?.id() != identity.id() {
                bail!("{} holds another identity; give this node a --state of its own", path.display());
            }
            return Ok(());
        }
        let text = heterotune_crypto::Digest::from_bytes(identity.secret()).to_string();
        write_atomically(&path, text.as_bytes(), true)
    }

    /// Binds the folder to a charter the first time, and checks it afterwards.
    ///
    /// # Errors
    /// A folder that belongs to another network.
    pub fn bind(&self, charter: &Charter) -> Result<()> {
        let path = self.folder.join("charter.toml");
        if !path.exists() {
            return write_atomically(&path, toml::to_string(charter)?.as_bytes(), false);
        }
        let bound = crate::config::read_charter(&path)?;
        let differences = crate::net::differences(&bound, charter);
        if !differences.is_empty() {
            bail!(
                "the state folder {} belongs to another network: its charter differs in {}; give this network a --state of its own, with a copy of identity.key to be the same member",
                self.folder.display(),
                differences.join(", ")
            );
        }
        Ok(())
    }

    /// What was kept.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub fn load(&self) -> Result<Saved> {
        self.read().with_context(|| format!("cannot read {}", self.folder.join("ledger.redb").display()))
    }

    fn read(&self) -> Result<Saved> {
        let mut saved = Saved::default();
        let reading = self.ledger.begin_read()?;
        match reading.open_table(MESSAGES) {
            Ok(table) => {
                for row in table.iter()? {
                    saved.messages.push(row?.1.value().to_vec());
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(saved),
            Err(error) => return Err(error.into()),
        }
        for row in reading.open_table(CHECKPOINTS)?.iter()? {
            saved.checkpoints.push(wire::decode(row?.1.value(), CHECKPOINT_BYTES_MAX)?);
        }
        Ok(saved)
    }

    /// Writes records, all or none; they are on disk when this returns.
    ///
    /// # Errors
    /// A disk that is full or broken.
    pub fn keep(&self, records: &[Record]) -> Result<()> {
        self.write(records).with_context(|| {
            format!(
                "cannot write {}; is the disk full? Nothing is lost: free some space and start again",
                self.folder.join("ledger.redb").display()
            )
        })
    }

    fn write(&self, records: &[Record]) -> Result<()> {
        let writing = self.ledger.begin_write()?;
        {
            let mut messages = writing.open_table(MESSAGES)?;
            let mut checkpoints = writing.open_table(CHECKPOINTS)?;
            for record in records {
                match record {
                    Record::Message(message) => {
                        let (row, name) = key(message);
                        messages.insert((row, name.as_slice()), message.bytes.as_slice())?;
                    }
                    Record::Forget(message) => {
                        let (row, name) = key(message);
                        messages.remove((row, name.as_slice()))?;
                    }
                    Record::Checkpoint(checkpoint, forget_before) => {
                        let bytes = wire::encode(&**checkpoint, CHECKPOINT_BYTES_MAX)?;
                        checkpoints.insert(checkpoint.round, bytes.as_slice())?;
                        let oldest = checkpoint.round.saturating_sub(limits::HORIZON_MAX);
                        checkpoints.retain(|round, _| round >= oldest)?;
                        let first = row(Step::Round(*forget_before));
                        messages.retain(|(at, _), _| at < row(Step::Round(1)) || at >= first)?;
                    }
                }
            }
        }
        writing.commit()?;
        Ok(())
    }
}

/// A message's key in the ledger. Heads are not kept, and so have no step.
fn key(message: &Message) -> (u64, Vec<u8>) {
    let step = message.kind.step(message.round).unwrap_or(Step::Round(message.round));
    (row(step), [*message.signed.author().as_bytes(), *message.digest().as_bytes()].concat())
}

fn row(step: Step) -> u64 {
    match step {
        Step::Kernels => 0,
        Step::Statistics => 1,
        Step::Round(round) => round.saturating_add(1),
    }
}

/// Writes a file so that it is either the old one or the new one, whatever happens; `secret` files are mode 0600.
///
/// # Errors
/// One sentence on what could not be written.
pub fn write_atomically(path: &Path, bytes: &[u8], secret: bool) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        #[cfg(unix)]
        if !secret {
            // Temporary files are born private.
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
