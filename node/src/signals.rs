//! What the system tells a running node.

use anyhow::{Context as _, Result};
use std::{thread, time::Duration};
use tokio::sync::mpsc::{Receiver, channel};

/// How long a node has to stop by itself once its scenario's runner is gone.
const LAST_RESORT: Duration = Duration::from_secs(15);

/// Ctrl-C, SIGTERM, and in a scenario the end of standard input: the runner holds its other end for as long as it
/// lives, so that no child survives it, however it ends.
pub(crate) fn stop_signal(in_scenario: bool) -> Result<Receiver<&'static str>> {
    let (sender, receiver) = channel(1);
    let interrupted = sender.clone();
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("cannot listen for SIGTERM")?;
    tokio::spawn(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
        let _ = interrupted.send("signal").await;
    });
    if in_scenario {
        thread::Builder::new().name("stdin".into()).spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = sender.blocking_send("the scenario's runner is gone");
            // A node that hangs must not outlive its runner either.
            thread::sleep(LAST_RESORT);
            std::process::exit(1);
        })?;
    }
    Ok(receiver)
}

/// SIGHUP, for a node of its own.
pub(crate) fn reload_signal(in_scenario: bool) -> Result<Receiver<()>> {
    let (sender, receiver) = channel(1);
    #[cfg(unix)]
    if !in_scenario {
        let kind = tokio::signal::unix::SignalKind::hangup();
        let mut hangup = tokio::signal::unix::signal(kind).context("cannot listen for SIGHUP")?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let _ = sender.send(()).await;
            }
        });
    }
    Ok(receiver)
}
