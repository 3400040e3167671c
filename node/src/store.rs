//! The state folder: what a node must not lose.
//!
//! - `identity.key`: the 32 secret bytes in hexadecimal, mode 0600.
//! - `charter.toml`: the charter that this folder belongs to.
//! - `membership.cbor`: an admin's invitation, where the charter does not name this node.
//! - `node.toml`: what the node is run with ([`crate::config::NodeConfig`]).
//! - `ledger.redb`: messages of the steps that are not sealed and of the last that are; the seals; the sealed state, and
//!   the provisional ones since.
//! - `private.safetensors`: the node's own projections and what rounding has kept back (written by the trainer).
//! - `events.jsonl`: the event log ([`crate::events`]).
//! - `peers.json`, `bans.json`, `revocations.cbor`: what the network's edge remembers (written by [`crate::net`]).
//!
//! A file is written under another name, synced and renamed; the ledger is a database with atomic commits. A node
//! killed at any instant finds the state before or after its last write, never between.

use crate::folder::{CHARTER, IDENTITY, read_identity};
use anyhow::{Context as _, Result, bail};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    charter::Charter,
    limits,
    manifest::Manifest,
    message::{Message, Step},
    round::{Checkpoint, KeptPiece, Saved},
    seal::Seal,
    wire,
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// (the step's height; the message's id) -> envelope.
const MESSAGES: TableDefinition<'_, (u64, &[u8]), &[u8]> = TableDefinition::new("messages");

/// The same -> what the envelope only announces.
const BODIES: TableDefinition<'_, (u64, &[u8]), &[u8]> = TableDefinition::new("bodies");

/// (the step's height; the manifest's digest; which piece) -> a piece of what is being fetched.
const PIECES: TableDefinition<'_, (u64, &[u8], u32), &[u8]> = TableDefinition::new("pieces");

/// Round -> the state before it.
const CHECKPOINTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("checkpoints");

/// The step's height -> its seal.
const SEALS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("seals");

/// What the database may keep of itself in memory: what nodes read of it they keep anyway (redb's default: 1 GiB).
const CACHE_BYTES: usize = 4 << 20;

/// A node's state folder, open. Only one process can hold it.
pub struct Store {
    folder: PathBuf,
    ledger: Database,
}

/// Something to keep.
#[derive(Debug)]
pub enum Record {
    /// A message of the ledger, with its body.
    Message(Arc<Message>),
    /// A piece of what is being fetched.
    Piece(KeptPiece),
    /// A state.
    Checkpoint(Arc<Checkpoint>),
    /// A seal, and the first round whose messages are still needed.
    Seal(Arc<Seal>, u64),
}

impl Store {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// One sentence on what cannot be read or written, or that another process has it.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the state folder {}", folder.display()))?;
        let path = folder.join("ledger.redb");
        found_ledger(folder, &path).with_context(|| format!("cannot make {}", path.display()))?;
        let ledger = Database::builder().set_cache_size(CACHE_BYTES).open(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                anyhow::anyhow!(
                    "the state folder {} is in use by another node; give this one a --state of its own",
                    folder.display()
                )
            }
            error => anyhow::anyhow!(
                "cannot open {}: {error}; restore it from a backup; with the same key and no ledger a node contradicts what it has said, so without one take a new key",
                path.display()
            ),
        })?;
        Ok(Self { folder: folder.to_path_buf(), ledger })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder's identity; a new one the first time.
    ///
    /// # Errors
    /// A key file that cannot be read or written, or is not one.
    pub fn identity(&self) -> Result<Identity> {
        let path = self.folder.join(IDENTITY);
        if path.exists() {
            return read_identity(&path);
        }
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness for a key: {error}"))?;
        let identity = Identity::from_secret(secret);
        self.adopt(&identity)?;
        Ok(identity)
    }

    /// Makes `identity` the folder's own.
    ///
    /// # Errors
    /// A folder that has another one, or cannot be written.
    pub fn adopt(&self, identity: &Identity) -> Result<()> {
        let path = self.folder.join(IDENTITY);
        if path.exists() {
            if self.identity()?.id() != identity.id() {
                bail!("{} holds another identity; give this node a --state of its own", path.display());
            }
            return Ok(());
        }
        let text = Digest::from_bytes(identity.secret()).to_string();
        write_atomically(&path, text.as_bytes(), true)
    }

    /// Binds the folder to a charter the first time, and checks it afterwards.
    ///
    /// # Errors
    /// A folder that belongs to another network.
    pub fn bind(&self, charter: &Charter) -> Result<()> {
        let path = self.folder.join(CHARTER);
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
        for row in reading.open_table(BODIES)?.iter()? {
            let bytes = row?.1.value().to_vec();
            saved.bodies.insert(Manifest::of(&bytes).digest(), bytes);
        }
        for row in reading.open_table(PIECES)?.iter()? {
            let (key, bytes) = row?;
            let (_, blob, piece) = key.value();
            let Ok(blob) = blob.try_into().map(Digest::from_bytes) else { continue };
            saved.pieces.entry(blob).or_default().insert(piece, bytes.value().to_vec());
        }
        for row in reading.open_table(CHECKPOINTS)?.iter()? {
            saved.checkpoints.push(wire::decode(row?.1.value(), limits::STATE_BYTES_MAX)?);
        }
        // Genesis, and what peers may ask for. The seals in between stay on the disk, for who wants to check them.
        let seals = reading.open_table(SEALS)?;
        let last = seals.last()?.map_or(0, |(height, _)| height.value());
        let recent = last.saturating_sub(limits::HORIZON_MAX).max(GENESIS);
        for row in seals.range(..GENESIS)?.chain(seals.range(recent..)?) {
            saved.seals.push(wire::decode(row?.1.value(), limits::SEAL_BYTES_MAX)?);
        }
        Ok(saved)
    }

    /// All seals since genesis, in order.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub fn seals(&self) -> Result<Vec<Seal>> {
        let read = || -> Result<Vec<Seal>> {
            let reading = self.ledger.begin_read()?;
            let table = match reading.open_table(SEALS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            table.iter()?.map(|row| Ok(wire::decode(row?.1.value(), limits::SEAL_BYTES_MAX)?)).collect()
        };
        read().with_context(|| format!("cannot read {}", self.folder.join("ledger.redb").display()))
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
            let mut bodies = writing.open_table(BODIES)?;
            let mut pieces = writing.open_table(PIECES)?;
            let mut checkpoints = writing.open_table(CHECKPOINTS)?;
            let mut seals = writing.open_table(SEALS)?;
            for record in records {
                match record {
                    Record::Message(message) => {
                        let (height, id) = (message.step.height(), message.id());
                        messages.insert((height, id.as_bytes().as_slice()), message.bytes.as_slice())?;
                        if let Some(body) = &message.body {
                            bodies.insert((height, id.as_bytes().as_slice()), body.bytes())?;
                            let blob = body.digest();
                            let blob = blob.as_bytes().as_slice();
                            pieces.retain_in((height, blob, 0)..=(height, blob, u32::MAX), |_, _| false)?;
                        }
                    }
                    Record::Piece(KeptPiece { height, blob, piece, bytes }) => {
                        pieces.insert((*height, blob.as_bytes().as_slice(), *piece), bytes.as_slice())?;
                    }
                    Record::Checkpoint(checkpoint) => {
                        let bytes = wire::encode(&**checkpoint, limits::STATE_BYTES_MAX)?;
                        checkpoints.insert(checkpoint.round, bytes.as_slice())?;
                    }
                    Record::Seal(seal, forget_before) => {
                        let sealed = seal.step.height();
                        seals.insert(sealed, wire::encode(&**seal, limits::SEAL_BYTES_MAX)?.as_slice())?;
                        // Of the step only what the seal names, and of rounds before the first that is needed nothing.
                        let named = |id: &[u8]| seal.ids.iter().any(|sealed| sealed.as_bytes() == id);
                        let first = Step::Round(*forget_before).height().max(GENESIS);
                        for table in [&mut messages, &mut bodies] {
                            table.retain_in(first_of(GENESIS)..first_of(first), |_, _| false)?;
                            let step = first_of(sealed)..first_of(sealed + 1);
                            table.retain_in(step, |(_, id), _| named(id))?;
                        }
                        pieces.retain_in(..(sealed + 1, [].as_slice(), 0), |_, _| false)?;
                        checkpoints.retain_in(..=seal.step.round(), |_, _| false)?;
                    }
                }
            }
        }
        writing.commit()?;
        Ok(())
    }
}

/// The heights below this are genesis, which is kept for ever.
const GENESIS: u64 = 2;

/// The first key of this height that there can be in tables of messages.
fn first_of(height: u64) -> (u64, &'static [u8]) {
    (height, &[])
}

/// Makes an empty ledger where there is none: whole or not at all, as a node killed meanwhile must start again.
fn found_ledger(folder: &Path, path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    drop(Database::create(file.path())?);
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        // Another process was faster; it is told apart when the ledger is opened.
        Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.error.into()),
        _ => Ok(File::open(folder)?.sync_all()?),
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

#[cfg(test)]
mod tests {
    use super::*;
    /// A node that died while it made its ledger leaves at most a file under another name, whatever is in it.
    #[test]
    fn a_half_made_ledger_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [(".new-empty", 0), (".new-half", 1_000)] {
            fs::write(folder.path().join(name), vec![7; bytes]).unwrap();
        }
        let key = Store::open(folder.path()).unwrap().identity().unwrap().id();
        assert_eq!(Store::open(folder.path()).unwrap().identity().unwrap().id(), key);
        // Only whole ones ever have the name: one that is there is opened, never made anew.
        fs::write(folder.path().join("ledger.redb"), vec![0; 1_000]).unwrap();
        let told = Store::open(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(told.contains("restore it from a backup"), "{told}");
        assert_eq!(fs::read(folder.path().join("ledger.redb")).unwrap(), vec![0; 1_000]);
    }
}
