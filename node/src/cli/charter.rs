//! `heterotune charter new|show`.

use super::{peers::bytes, state::State, using::TaskKind};
use crate::{
    config::read_charter,
    data::{self, Tokenizer},
    events,
    folder::{CHARTER, IDENTITY, read_identity},
    store::write_atomically,
};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    admission::Admission,
    charter::{Anchors, Charter, Closing, CodecKind, Task, Vocabulary},
    codec, limits,
    mixture::Layout,
    seal,
};
use heterotune_scenarios::{
    anchors::{self, Shipped},
    world::Options,
};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write a charter with the default settings. Edit the file before the first node runs; every node needs the same.
    New(Box<New>),
    /// Check a charter and show what it means.
    Show {
        /// The charter file [default: charter.toml in the state folder].
        file: Option<PathBuf>,
        #[command(flatten)]
        state: State,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The charter file to write [default: charter.toml in the state folder, where `run` and `invite` look for it].
    file: Option<PathBuf>,
    #[command(flatten)]
    state: State,
    /// What people call the network.
    #[arg(long)]
    name: String,
    /// A member's key, as `heterotune init` prints it; once for each member [default: this node's own].
    #[arg(long = "founder", value_name = "KEY")]
    founders: Vec<NodeId>,
    /// The key of a member who may come later, and takes no part in genesis; once for each.
    #[arg(long = "member", value_name = "KEY")]
    members: Vec<NodeId>,
    /// Who may join beside those: nobody, whom an admin invites, or anyone. In an open network the fusion has no
    /// defence against a majority of keys, which cost nothing to make.
    #[arg(long, value_name = "KIND", default_value = "allowlist")]
    admission: AdmissionKind,
    /// The key of one who may invite and revoke, in an invited network; once for each [default: this node's own].
    #[arg(long = "admin", value_name = "KEY")]
    admins: Vec<NodeId>,
    /// A founder whose votes seal rounds; once for each [default: all founders, up to 31; must be given in an open
    /// network]. Of n, (n - 1) / 3 may lie or be away.
    #[arg(long = "sealer", value_name = "KEY")]
    sealers: Vec<NodeId>,
    /// Who closes a round: everyone by itself, sealed afterwards, or the round's elected leader.
    #[arg(long, value_name = "everyone|leader", default_value = "everyone", value_parser = Options::closing)]
    closing: Closing,
    /// How a value of an update is written. Fewer bits lose more; what they lose the sender adds to its next update.
    #[arg(long, value_name = "KIND", default_value = "q8")]
    codec: Written,
    /// What is learnt: image-classification, text-classification or causal-lm.
    #[arg(long, value_name = "TASK", default_value = "image-classification")]
    task: TaskKind,
    /// The labels of a classification, separated by commas.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    /// For causal-lm: a backbone's folder; nodes with its tokenizer share a readout over its tokens. Once for each.
    #[arg(long = "readout", value_name = "DIR")]
    readouts: Vec<PathBuf>,
    /// The file of public, unlabelled anchors that every node has beside its training data: images (.csv of pixels,
    /// .bin of CIFAR records, ..) or texts (.jsonl, ..) [default: those that ship with the program for the task,
    /// written beside the charter]. Those like the training data align best.
    #[arg(long, value_name = "FILE")]
    anchors: Option<PathBuf>,
    /// How many rounds to run; 0 for no end.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Makes the network another one when it is founded anew with the same settings.
    #[arg(long, default_value_t = 0)]
    nonce: u64,
}

/// Who may join, as it is said on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AdmissionKind {
    /// Nobody but the founders and members.
    Allowlist,
    /// Whom an admin invites.
    Invited,
    /// Anyone.
    Open,
}

/// How a value is written, as it is said on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Written {
    /// 32 bits a value, as it is trained.
    F32,
    /// 8 bits: 255 steps, on one scale for each of the shared tensors.
    Q8,
    /// 4.1 bits: 15 steps, on a scale that 64 values share.
    Q4,
    /// 1.1 bits: plus or minus, times a size that 64 values share.
    Sign,
    /// Half a bit: of 32 values the largest one, in 8 bits, and where it is; the others wait.
    #[value(name = "topk")]
    TopK,
}

impl From<Written> for CodecKind {
    fn from(written: Written) -> Self {
        match written {
            Written::F32 => Self::F32,
            Written::Q8 => Self::Q8,
            Written::Q4 => Self::Q4,
            Written::Sign => Self::Sign,
            Written::TopK => Self::TopK,
        }
    }
}

pub(super) fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::New(new) => {
            let state = new.state.folder();
            let file = new.file.clone().unwrap_or_else(|| state.join(CHARTER));
            if file.exists() {
                bail!("{} is there already; choose another name, or delete it first", file.display());
            }
            let charter = new.charter(&state)?;
            if new.anchors.is_none() {
                let shipped = new.task.anchors();
                put(shipped, &file.with_file_name(shipped.name))?;
            }
            write_atomically(&file, toml::to_string(&charter)?.as_bytes(), false)?;
            explain(&charter)
        }
        Verb::Show { file, state, json } => {
            let charter = read_charter(&file.clone().unwrap_or_else(|| state.folder().join(CHARTER)))?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&charter)?);
                return Ok(());
            }
            explain(&charter)
        }
    }
}

/// The anchors in a file.
fn anchors_of(path: &Path) -> Result<Anchors> {
    let count = u16::try_from(data::count(path)?).unwrap_or(u16::MAX);
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Anchors { digest: Anchors::digest_of(&bytes), count })
}

impl New {
    fn charter(&self, state: &Path) -> Result<Charter> {
        let shipped = self.task.anchors();
        let anchors = match &self.anchors {
            Some(path) => anchors_of(path)?,
            None => Anchors { digest: Anchors::digest_of(shipped.bytes), count: shipped.count },
        };
        let founders = or_own(&self.founders, state, "--founder")?;
        let mut charter = Charter::new(&self.name, founders, self.task.of(&self.labels, &self.readouts)?, anchors);
        charter.members = self.members.clone();
        charter.admission = self.admission(state)?;
        if !self.sealers.is_empty() {
            charter.sealers = self.sealers.clone();
        }
        let contributors = (charter.founders.len() + self.members.len()).min(charter.rounds.contributors.into());
        charter.rounds.quorum = u16::try_from(contributors * 2 / 3 + 1).unwrap_or(u16::MAX);
        (charter.rounds.total, charter.rounds.closing) = (self.rounds, self.closing);
        charter.codec.kind = self.codec.into();
        charter.nonce = self.nonce;
        charter.check()?;
        Ok(charter)
    }

    fn admission(&self, state: &Path) -> Result<Admission> {
        match self.admission {
            AdmissionKind::Invited => Ok(Admission::Invited { admins: or_own(&self.admins, state, "--admin")? }),
            _ if !self.admins.is_empty() => bail!("--admin is for --admission invited"),
            AdmissionKind::Allowlist => Ok(Admission::Allowlist),
            AdmissionKind::Open if self.sealers.is_empty() => bail!(
                "--sealer is missing: anyone may join an open network, so say whose votes are trusted to seal its rounds"
            ),
            AdmissionKind::Open => Ok(Admission::Open),
        }
    }
}

/// The keys that are given; otherwise this node's.
fn or_own(keys: &[NodeId], state: &Path, flag: &str) -> Result<Vec<NodeId>> {
    if !keys.is_empty() {
        return Ok(keys.to_vec());
    }
    let own = read_identity(&state.join(IDENTITY));
    Ok(vec![
        own.with_context(|| format!("{flag} is missing, and this node has no key yet: run `heterotune init`"))?.id(),
    ])
}

/// Writes the anchors that ship, unless they are there.
fn put(anchors: &Shipped, path: &Path) -> Result<()> {
    let shown = path.display();
    match fs::read(path) {
        Ok(bytes) if bytes == anchors.bytes => (),
        Ok(_) => bail!("{shown} is there already, and is another file; move it away, or take it by --anchors {shown}"),
        Err(error) if error.kind() == ErrorKind::NotFound => write_atomically(path, anchors.bytes, false)?,
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    }
    let Shipped { count, holds, .. } = anchors;
    println!(
        "anchors     {shown}: {count} {holds} that ship with the program; every node needs them in its data folder"
    );
    Ok(())
}

impl TaskKind {
    /// The anchors that ship for the task.
    fn anchors(self) -> &'static Shipped {
        match self {
            Self::ImageClassification => &anchors::PICTURES,
            Self::TextClassification | Self::CausalLm => &anchors::TEXTS,
        }
    }

    /// The task with these labels, or the vocabularies of these backbones.
    fn of(self, labels: &[String], readouts: &[PathBuf]) -> Result<Task> {
        let labels = labels.to_vec();
        match self {
            Self::CausalLm if labels.is_empty() => {
                let vocabulary = |folder: &PathBuf| -> Result<Vocabulary> {
                    let tokenizer = Tokenizer::open(folder)?;
                    let tokens = u32::try_from(tokenizer.tokens())?;
                    Ok(Vocabulary { tokenizer: tokenizer.digest(), tokens })
                };
                Ok(Task::CausalLm { vocabularies: readouts.iter().map(vocabulary).collect::<Result<_>>()? })
            }
            Self::CausalLm => bail!("a language model has no --labels; leave them out, or take another --task"),
            _ if labels.is_empty() => bail!("--labels is missing: the labels of the task, separated by commas"),
            _ if !readouts.is_empty() => bail!("--readout is for --task causal-lm"),
            Self::TextClassification => Ok(Task::TextClassification { labels }),
            Self::ImageClassification => Ok(Task::ImageClassification { labels }),
        }
    }
}

/// Mixtures that a node keeps: see `train::Snapshot`.
const KEPT: usize = 17;

fn explain(charter: &Charter) -> Result<()> {
    let values = Layout::new(charter).values();
    let update = codec::update_bytes(charter.codec.kind, &Layout::new(charter));
    let members = charter.founders.len() + charter.members.len();
    let (anchors, sealers) = (usize::from(charter.anchors.count), charter.sealers.len());
    println!("network     {} ({})", charter.id()?, charter.name);
    println!(
        "members     {members}, {} founders; {} contribute to a round, and {} must deliver for it to close at its deadline",
        charter.founders.len(),
        members.min(charter.rounds.contributors.into()),
        charter.rounds.quorum
    );
    println!(
        "others      {}",
        match &charter.admission {
            Admission::Allowlist => "may not join".into(),
            Admission::Invited { admins } => format!("may join whom one of {} admins invites", admins.len()),
            Admission::Open => "may join, whoever they are: a majority of keys can teach it anything".into(),
        }
    );
    let closing = match charter.rounds.closing {
        Closing::Everyone => format!("everyone closes, seals follow by up to {} rounds", charter.rounds.horizon),
        Closing::Leader => "an elected leader closes each round".into(),
    };
    println!(
        "sealed by   {sealers} founders: {} votes seal a round, {} may lie or be away; {closing}",
        seal::quorum(sealers),
        seal::faults(sealers)
    );
    match &charter.task {
        Task::CausalLm { vocabularies } => {
            println!("task        language models; {} tokenizers share a readout", vocabularies.len());
        }
        task => println!("task        {} labels: {}", task.labels().len(), task.labels().join(", ")),
    }
    println!(
        "shared      {values} values: {} slots x {} branches of {r} x {r}, and the readout",
        charter.adapter.slots,
        charter.adapter.branches,
        r = charter.adapter.rank
    );
    println!(
        "a round     {update} bytes an update, {:.1} bits a value, from each member to each; waits {} s",
        8.0 * update as f64 / values as f64,
        charter.rounds.deadline_ms / 1_000
    );
    println!(
        "genesis     {} bytes of anchor kernels a member, once",
        usize::from(charter.adapter.slots) * anchors * (anchors + 1)
    );
    let contributors = members.clamp(1, charter.rounds.contributors.into());
    println!(
        "memory      {} while a round's updates are fused, beside the backbone",
        bytes((values * (4 * contributors + 3 * 16)) as u64)
    );
    println!("            up to {} of updates until they are sealed", bytes(charter.updates_bytes()));
    println!(
        "disk        {} of mixtures and messages a node, and up to {} of event logs",
        bytes((values * 4 * KEPT + (usize::from(charter.rounds.horizon) + 2) * contributors * update) as u64),
        bytes(2 * events::BYTES_MAX)
    );
    println!(
        "protocol    version {}, messages up to {} KiB, larger updates in pieces",
        charter.protocol,
        limits::MESSAGE_BYTES_MAX / 1_024
    );
    Ok(())
}
