//! Processes that never outlive the test that started them, and the event logs that they write.

use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up on it. Far more than it takes.
const DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks, at the least.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Looks until there is something to see.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        let looking = Instant::now();
        if let Some(seen) = look() {
            return seen;
        }
        assert!(since.elapsed() < DEADLINE, "waited in vain for {what}");
        // Long logs take long to read: most of the processor is left to those that are waited for.
        thread::sleep(POLL_INTERVAL.max(3 * looking.elapsed()));
    }
}

/// The program under test.
pub(crate) fn heterotune() -> Command {
    Command::new(env!("CARGO_BIN_EXE_heterotune"))
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it said beside that.
    pub(crate) stderr: String,
}

/// A running process, killed when this is dropped. Its stdin is held open for as long.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to files in `folder`.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let (stdout, stderr) = (folder.join("stdout.log"), folder.join("stderr.log"));
        let child = command
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Self { child, stdout, stderr }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(fs::read(&self.stderr).unwrap()).unwrap()
    }

    /// Its end, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        let status = self.child.try_wait().unwrap()?;
        let text = |path: &Path| String::from_utf8(fs::read(path).unwrap()).unwrap();
        Some(Ended { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) })
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Ended {
        wait_for("the end of a process", || self.ended())
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The events that a node has logged so far.
pub(crate) fn events(state: &Path) -> Vec<Value> {
    let text = fs::read_to_string(state.join("events.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    // A node killed while it wrote leaves half a line.
    whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether an event is a `kind`, of `round` where that matters.
pub(crate) fn has(event: &Value, kind: &str, round: Option<u64>) -> bool {
    event["event"] == kind && round.is_none_or(|round| event["round"] == round)
}

/// A `heterotune run`.
#[derive(Debug)]
pub(crate) struct Node {
    /// The process.
    pub(crate) process: Process,
    /// Its state folder.
    pub(crate) state: PathBuf,
    /// Events that were there before it started.
    before: usize,
}

impl Node {
    /// Starts a node with the state folder `state`.
    pub(crate) fn start(state: &Path, arguments: impl FnOnce(&mut Command)) -> Self {
        Self::start_with(heterotune(), state, arguments)
    }

    /// The same by a command that begins otherwise.
    pub(crate) fn start_with(mut command: Command, state: &Path, arguments: impl FnOnce(&mut Command)) -> Self {
        command.arg("run").arg("--state").arg(state);
        arguments(&mut command);
        Self::of(command, state)
    }

    /// The node that a whole command starts.
    pub(crate) fn of(command: Command, state: &Path) -> Self {
        let before = events(state).len();
        Self { process: Process::start(command, state), state: state.into(), before }
    }

    /// Waits until the node, in this life, logs an event that is wanted.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let (process, state) = (&mut self.process, &self.state);
        wait_for(&format!("{what} in {}", state.display()), || {
            // Before the log is read: what it wrote before its end is then all there.
            let ended = process.ended();
            let seen = events(state).into_iter().skip(self.before).find(|event| wanted(event));
            assert!(seen.is_some() || ended.is_none(), "{} ended without {what}: {ended:?}", state.display());
            seen
        })
    }

    /// Whether it has logged anything in this life.
    pub(crate) fn is_started(&self) -> bool {
        events(&self.state).len() > self.before
    }

    /// Where it listens with TCP.
    pub(crate) fn address(&mut self) -> String {
        let address = |event: &Value| event["address"].as_str().filter(|address| address.contains("/tcp/")).is_some();
        let event = self.wait_for("an address", |event| has(event, "listening", None) && address(event));
        event["address"].as_str().unwrap().into()
    }
}

/// Whether a process runs that is nobody's child here. One that nobody has collected yet does not run any more.
pub(crate) fn is_running(pid: u64) -> bool {
    if Path::new("/proc/self/stat").exists() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        return stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'));
    }
    Command::new("kill").args(["-0", &pid.to_string()]).stderr(Stdio::null()).status().unwrap().success()
}

/// Kills a process that is nobody's child here.
pub(crate) fn kill(pid: u64) {
    Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}
