//! The gate: the first exchange on a new connection, before any protocol gets a byte.
//!
//! It sits between the secure, multiplexed connection and the swarm. The dialler opens a substream, and each side sends
//! its [`Greeting`], reads the other's, lets the [`Doorkeeper`] judge it and sends its [`Reply`]. Only if both say
//! "welcome" does the connection go up to the swarm; otherwise it ends in an error that holds the refusal's sentence, on
//! both sides.
//!
//! A frame is its length in four bytes, the most significant first, and so many bytes of CBOR. A side that has read the
//! other's reply closes its half of the substream and waits for the other's end: so neither hangs up before the other
//! has read why.
//!
//! [`Greeting`]: heterotune_protocol::message::Greeting

use super::{
    door::{Doorkeeper, Misfit},
    node_id,
};
use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use heterotune_protocol::{
    limits,
    message::Reply,
    wire::{self, WireError},
};
use libp2p::{
    PeerId,
    core::{
        ConnectedPoint, Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
    },
};
use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;

/// How long the whole exchange may take: three round trips and a charter of 32 KiB, on a bad link.
pub(super) const TIME_MAX: Duration = Duration::from_secs(10);

/// How long a side waits for the other to have read its reply.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection has ended at the gate.
///
/// libp2p wraps transport errors; [`Refusal`] is found in one as its source.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// One side does not want the other.
    #[error("refused at the gate")]
    Refused(#[source] Refusal),
    /// The exchange broke off.
    #[error("the peer has not said who it is ({0})")]
    Broken(io::Error),
}

/// That two peers do not fit, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The other side.
    pub peer: PeerId,
    /// Why, in words: this node's reason, or the other's if this node would have let it in.
    pub reason: String,
}

impl Refusal {
    /// The refusal in a transport's error, if that is what it is.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut errors = std::iter::successors(Some(error), |error| error.source());
        errors.find_map(|error| error.downcast_ref())
    }
}

/// Takes a connection through the gate within so much time.
///
/// # Errors
/// A refusal by either side, or an exchange that fails, is too slow or too long.
pub(super) async fn pass(
    door: Arc<Doorkeeper>,
    peer: PeerId,
    mut connection: StreamMuxerBox,
    endpoint: ConnectedPoint,
    time: Duration,
) -> Result<(PeerId, StreamMuxerBox), GateError> {
    let exchange = async {
        let mut stream = open(&mut connection, role(&endpoint)).await?;
        let words = pin!(exchange(&door, &peer, &mut stream));
        driven(&mut connection, words).await
    };
    let refusal = match timeout(time, exchange).await {
        Ok(done) => done.map_err(GateError::Broken)?,
        Err(_) => return Err(GateError::Broken(io::Error::new(io::ErrorKind::TimedOut, "it was silent for too long"))),
    };
    match refusal {
        None => Ok((peer, connection)),
        Some(reason) => Err(GateError::Refused(Refusal { peer, reason: printable(&reason) })),
    }
}

/// Who opens the substream: the dialler, and of two that dial each other to punch a hole the one in the dialler's role.
fn role(endpoint: &ConnectedPoint) -> Endpoint {
    match endpoint {
        ConnectedPoint::Dialer { role_override, .. } => *role_override,
        ConnectedPoint::Listener { .. } => Endpoint::Listener,
    }
}

/// The one substream of the exchange.
pub(super) async fn open(connection: &mut StreamMuxerBox, role: Endpoint) -> io::Result<SubstreamBox> {
    poll_fn(|context| {
        let opened = match role {
            Endpoint::Dialer => connection.poll_outbound_unpin(context),
            Endpoint::Listener => connection.poll_inbound_unpin(context),
        };
        match opened {
            Poll::Pending => advance(connection, context).map(Err),
            opened => opened,
        }
    })
    .await
}

/// Runs `words`, which reads and writes a substream of `connection`, while the connection is moved on.
pub(super) async fn driven<T>(
    connection: &mut StreamMuxerBox,
    mut words: Pin<&mut impl Future<Output = io::Result<T>>>,
) -> io::Result<T> {
    poll_fn(|context| {
        let said = words.as_mut().poll(context);
        let (Poll::Pending, Poll::Ready(error)) = (&said, advance(connection, context)) else { return said };
        // What came before the connection's end may be all that there was to say.
        match words.as_mut().poll(context) {
            Poll::Pending => Poll::Ready(Err(error)),
            said => said,
        }
    })
    .await
}

/// Moves a connection on; ready with its error.
fn advance(connection: &mut StreamMuxerBox, context: &mut Context<'_>) -> Poll<io::Error> {
    match connection.poll_unpin(context) {
        Poll::Ready(Err(error)) => Poll::Ready(error),
        Poll::Ready(Ok(_)) => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => Poll::Pending,
    }
}

/// Both greetings and both replies; why the two do not fit, if they do not.
async fn exchange(door: &Doorkeeper, peer: &PeerId, stream: &mut SubstreamBox) -> io::Result<Option<String>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let node = node_id(peer).ok_or_else(|| invalid("its key is not an ed25519 key".into()))?;
    let greeting = door.greeting().map_err(|error| invalid(error.to_string()))?;
    send(stream, &greeting).await?;
    let judgement = match receive(stream, limits::GREETING_BYTES_MAX).await? {
        Ok(greeting) => door.judge(&node, &greeting, door.now()),
        Err(too_long) => Err(Misfit::Unreadable(too_long)),
    };
    let reply = match &judgement {
        Ok(_) => Reply::Welcome,
        Err(misfit) => Reply::Refused(shortened(misfit.to_string())),
    };
    let reply = wire::encode(&reply, limits::REPLY_BYTES_MAX).map_err(|error| invalid(error.to_string()))?;
    let sent = send(stream, &reply).await;
    let ahead = match judgement {
        Ok(ahead) => ahead,
        Err(misfit) => {
            // It may never say what it thinks of that, or have hung up.
            let _ = timeout(LINGER, heard_out(stream)).await;
            return Ok(Some(misfit.to_string()));
        }
    };
    sent?;
    let theirs = heard_out(stream).await?;
    let theirs = theirs.and_then(|bytes| wire::decode(&bytes, limits::REPLY_BYTES_MAX));
    match theirs.map_err(|error| invalid(format!("its reply is {error}")))? {
        Reply::Welcome => {
            door.came_in(node, ahead);
            Ok(None)
        }
        Reply::Refused(reason) => Ok(Some(format!("it does not let this node in: {reason}"))),
    }
}

/// The other's reply. After it each side closes its half; the other's end says that it has read ours.
async fn heard_out(stream: &mut SubstreamBox) -> io::Result<Result<Vec<u8>, WireError>> {
    let theirs = receive(stream, limits::REPLY_BYTES_MAX).await?;
    let _ = stream.close().await;
    // Its end, in whatever form.
    let _ = timeout(LINGER, stream.read(&mut [0])).await;
    Ok(theirs)
}

async fn send(stream: &mut SubstreamBox, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// A frame of at most `most` bytes, or that it is longer.
async fn receive(stream: &mut SubstreamBox, most: usize) -> io::Result<Result<Vec<u8>, WireError>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if bytes > most {
        return Ok(Err(WireError::TooLong { bytes, most }));
    }
    let mut frame = vec![0; bytes];
    stream.read_exact(&mut frame).await?;
    Ok(Ok(frame))
}

/// A sentence, cut where a reply ends.
fn shortened(mut sentence: String) -> String {
    while sentence.len() > limits::REFUSAL_BYTES_MAX {
        sentence.pop();
    }
    sentence
}

/// A peer's words without what would move the cursor of a terminal.
fn printable(words: &str) -> String {
    words.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::transport::PortUse;

    #[test]
    fn of_two_that_punch_a_hole_one_opens() {
        let address = "/ip4/203.0.113.7/tcp/9".parse::<libp2p::Multiaddr>().unwrap();
        let dialler = |role_override| ConnectedPoint::Dialer {
            address: address.clone(),
            role_override,
            port_use: PortUse::Reuse,
        };
        assert_eq!(role(&dialler(Endpoint::Dialer)), Endpoint::Dialer);
        assert_eq!(role(&dialler(Endpoint::Listener)), Endpoint::Listener);
        let listener = ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address.clone() };
        assert_eq!(role(&listener), Endpoint::Listener);
    }

    #[test]
    fn sentences_are_cut_at_letters_and_harmless_to_a_terminal() {
        let long = shortened("\u{e4}".repeat(limits::REFUSAL_BYTES_MAX));
        assert!(long.len() <= limits::REFUSAL_BYTES_MAX && long.ends_with('\u{e4}'));
        assert_eq!(printable("no\u{1b}[2J, \r\nnever"), "no[2J, never");
    }
}
