//! Every bound of the protocol, with its arithmetic. Nothing that comes from a peer is allocated for, stored or
//! computed with before it is held against one of these.

/// The version of everything in this crate that two nodes must agree on.
pub const PROTOCOL_VERSION: u16 = 5;

/// The largest gossiped message, envelope included: 256 KiB. An update of the default shape is 1.7 KB (q8), the anchor
/// kernels 33 KB (two spaces of 128 anchors), the class statistics 23 KB.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// What an envelope adds to its payload: names and numbers of seven fields, a key, a signature (about 250 bytes).
pub const ENVELOPE_BYTES_MAX: usize = 512;

/// The largest payload that fits into a message. A larger update is announced, and fetched in pieces.
pub const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - ENVELOPE_BYTES_MAX;

/// The largest request to a peer: an id list of one step (32 authors x 2 hashes), or a hello with addresses.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The largest answer of a peer: twelve of the largest messages, or a state that is no larger. The rest is asked for
/// again, or fetched in pieces.
pub const RESPONSE_BYTES_MAX: usize = 12 * MESSAGE_BYTES_MAX;

/// A piece of what is too large for a message: 128 KiB. On a line of 1 Mbit/s it takes a second, and the digests of the
/// largest update's pieces still fit a message (9 KB).
pub const PIECE_BYTES: usize = 128 * 1024;

/// The largest update: every value of the largest mixture in 4 bytes, and what CBOR adds to its groups. 32 MiB.
pub const UPDATE_BYTES_MAX: usize = 4 * MIXTURE_VALUES_MAX + 4_096;

/// Pieces of the largest thing that is fetched, which is a state: 588, whose digests take 20 KB.
pub const PIECES_MAX: usize = STATE_BYTES_MAX.div_ceil(PIECE_BYTES);

/// Fetches that ask for pieces at once. One that gets none for [`FETCH_STALL_MS`] gives way to the next, so that who
/// announces and does not give keeps nobody waiting.
pub const FETCHES_MAX: usize = 4;

/// See [`FETCHES_MAX`].
pub const FETCH_STALL_MS: u64 = 10_000;

/// Pieces of one fetch that are asked for at once: 512 KiB under way fill 50 Mbit/s at 80 ms there and back.
pub const PIECES_ASKED_MAX: usize = 4;

/// How many of those from one peer: the next is on its way while the last arrives.
pub const PIECES_ASKED_OF_PEER_MAX: usize = 2;

/// How soon a peer is asked again for a piece that it did not have, in ms; it may be fetching it.
pub const PIECE_RETRY_MS: u64 = 1_000;

/// How long a piece may take, in ms: at 50 kbit/s it takes 21 s.
pub const PIECE_TIMEOUT_MS: u64 = 30_000;

/// How long after it was last asked for a state is still given to those who fetch it, though there are newer ones, in ms.
pub const OFFER_MS: u64 = 60_000;

/// The largest charter, in CBOR or TOML: 16,384 members (67 bytes each in TOML) and 1,000 labels fit.
pub const CHARTER_BYTES_MAX: usize = 1_280 * 1024;

/// The largest charter that a greeting carries, so that a difference can be named: 64 founders and 1,000 labels of 24
/// bytes fit. Of a larger one it tells only the digest.
pub const GREETING_CHARTER_BYTES_MAX: usize = 32 * 1024;

/// The largest greeting: a charter, a membership (150 bytes), the time, and the names of the fields.
pub const GREETING_BYTES_MAX: usize = GREETING_CHARTER_BYTES_MAX + 512;

/// The longest sentence with which a peer is refused: a list of all settings in which two charters differ is cut there.
pub const REFUSAL_BYTES_MAX: usize = 1_024;

/// The largest answer to a greeting: the sentence, and CBOR around it.
pub const REPLY_BYTES_MAX: usize = REFUSAL_BYTES_MAX + 16;

/// Founders of a network: each publishes kernels (33 KB) and statistics (23 KB), which newcomers fetch for ever.
pub const FOUNDERS_MAX: usize = 64;

/// Members of a network, the charter's and those who come later. Only the roster, the draw of contributors and the state
/// grow with them: 512 KiB of keys.
pub const MEMBERS_MAX: usize = 16_384;

/// Newcomers that one round enrols, and of whose enrolments in a round a node holds any.
pub const ENROLMENTS_MAX: usize = 16;

/// Newcomers that give way to others in a round. Of n in any order it is about [`ENROLMENTS_MAX`] ln (n /
/// [`ENROLMENTS_MAX`]): 103 of 10,000. More come only where somebody sends the last ones first on purpose.
pub const ENROLMENTS_SHED_MAX: usize = 256;

/// What an enrolment says: a membership of 175 bytes.
pub const ENROLMENT_BYTES_MAX: usize = 256;

/// Enrolments from one peer whose signatures, two of each, are checked in [`FLOOD_MS`]: 12 ms of work, and about what a
/// node passes on in a round of 10,000 newcomers.
pub const ENROLMENT_FLOOD_MAX: u32 = 128;

/// Keys that may invite and revoke.
pub const ADMINS_MAX: usize = 16;

/// What a membership's signature covers: a key and an expiry, 44 bytes at most.
pub const MEMBERSHIP_BYTES_MAX: usize = 64;

/// One admin's revocations: 34 bytes a member, for half of the largest membership, 272 KiB.
pub const REVOCATIONS_BYTES_MAX: usize = 17 * MEMBERS_MAX + 64;

/// Contributors to a round: a round's ids, messages and fold are bounded by it, and the fold's integers (see
/// [`EXPONENT_RANGE_MAX`]).
pub const CONTRIBUTORS_MAX: usize = 64;

/// Sealers: a certificate of 31 holds 21 signatures of 80 bytes, a proposal 21 lists of [`IDS_MAX`] ids at most (114 KB).
pub const SEALERS_MAX: usize = 31;

/// Labels of a classification task.
pub const LABELS_MAX: usize = 1_000;

/// Tokenizers with a readout of their own in one network.
pub const VOCABULARIES_MAX: usize = 16;

/// Bytes of one label, or of a network's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Adapter slots in a backbone.
pub const SLOTS_MAX: usize = 8;

/// Branches in a slot.
pub const BRANCHES_MAX: usize = 16;

/// The inner width r of a branch.
pub const RANK_MAX: usize = 256;

/// The width of the shared readout's input. The statistics' Gram matrix is its square.
pub const READOUT_RANK_MAX: usize = 128;

/// Public anchors. The eigenvectors of an n x n kernel take n^3 steps: 0.1 s at 128, 1 s at 256.
pub const ANCHORS_MAX: usize = 256;

/// The fewest anchors from which anything can be aligned.
pub const ANCHORS_MIN: usize = 8;

/// Values in a whole mixture: a vocabulary of 32,000 tokens and a readout of 256 take 8.2 million. It is the wire's bound:
/// fusion itself is exact for any number of values.
pub const MIXTURE_VALUES_MAX: usize = 8 << 20;

/// What the updates of a network may take in a node's memory: its contributors' of `horizon` rounds and two more, each
/// as bytes and as integers. 4 GiB.
pub const UPDATES_BYTES_MAX: u64 = 4 << 30;

/// Mantissas of an update: |m| < 2^23, so that each is an f32 exactly and a block of 4,096 products fits an i64
/// (23 + 23 + 12 = 58 bits).
pub const MANTISSA_BITS: u32 = 23;

/// Values a block of the exact Gram matrix has before it is added up in an i128. 64 blocks of 16-bit copies are 512 KiB
/// and stay in the second cache.
pub const GRAM_BLOCK: usize = 4_096;

/// Exponents a charter may allow: f32's own range, less the mantissa.
pub const EXPONENT_LOWEST: i16 = -120;

/// See [`EXPONENT_LOWEST`].
pub const EXPONENT_HIGHEST: i16 = 60;

/// The widest range of exponents in one charter: 60 + 23 bits of mantissa + 30 bits of weight + 7 bits of senders
/// (64) are 120 bits and fit an i128.
pub const EXPONENT_RANGE_MAX: i16 = 60;

/// Rounds behind the current one whose updates are still taken and refolded.
pub const HORIZON_MAX: u64 = 16;

/// Ids in a list: a message of every contributor and newcomer, and a second one as the proof of a conflict. 5.4 KB.
pub const IDS_MAX: usize = 2 * (CONTRIBUTORS_MAX + ENROLMENTS_MAX);

/// Ids in a seal. Of n sealers' lists, with two ids of an author each, at most 2 n / (f + 1) have the support of f + 1:
/// fewer than 6 of an author who shows every sealer something else, and fewer than 6 a newcomer that a list has a place
/// for. 16 KB.
pub const SEALED_IDS_MAX: usize = 6 * (CONTRIBUTORS_MAX + ENROLMENTS_MAX);

/// The largest seal: its ids, and 31 ballots of 160 bytes: 21 KB.
pub const SEAL_BYTES_MAX: usize = 24 * 1024;

/// The largest sealed state: every value of the largest mixture as a 9-byte CBOR integer; of every member the enrolment,
/// the evidence and the ban (a key of 34 bytes and a number of 9 each); and the digests of the horizon: 78 MB.
pub const STATE_BYTES_MAX: usize = 9 * MIXTURE_VALUES_MAX + 3 * 43 * MEMBERS_MAX + 4_096;

/// The largest state that travels in an answer, with its seal.
pub const STATE_INLINE_BYTES_MAX: usize = RESPONSE_BYTES_MAX - SEAL_BYTES_MAX - 1_024;

/// Ids of one step that a pull may name: its entries, and lists, votes and proposals of every sealer. 34 bytes each,
/// 34 KB.
pub const PULL_IDS_MAX: usize = 1_000;

/// The last view there can be: one a minute for two years.
pub const VIEW_MAX: u32 = 1 << 20;

/// Views ahead of the current one in which a sealer's votes are counted.
pub const VIEWS_AHEAD_MAX: usize = 64;

/// Views, up to the newest, whose votes and proposals are kept and passed on: 31 x 2 votes of 300 bytes and a proposal
/// of 100 KB each.
pub const VIEWS_KEPT: u32 = 4;

/// How long a view waits for its proposal at least and at most, in ms; a third of the round's deadline in between.
pub const PATIENCE_MS_MIN: u64 = 200;

/// See [`PATIENCE_MS_MIN`].
pub const PATIENCE_MS_MAX: u64 = 3_000;

/// How long a late view waits at most, in ms.
pub const VIEW_MS_MAX: u64 = 60_000;

/// Messages of steps that are not known well enough yet to judge them: of two rounds, and the sealers' of one.
pub const EARLY_MAX: usize = 2 * CONTRIBUTORS_MAX + 4 * SEALERS_MAX;

/// Messages of one peer that may fail verification in [`FLOOD_MS`] before nothing of it is looked at for as long.
pub const FLOOD_MAX: u32 = 16;

/// See [`FLOOD_MAX`].
pub const FLOOD_MS: u64 = 10_000;

/// Heads of one peer whose signatures are checked in [`FLOOD_MS`]: 6 ms of work. A node says one every
/// [`HEAD_INTERVAL_MS`] and one a step; who catches up says many at once, and repeats the last.
pub const HEAD_FLOOD_MAX: u32 = 128;

/// Rounds ahead of the current one whose updates are kept for later: a peer is at most two closes ahead of the
/// slowest node that it has heard from.
pub const ROUNDS_AHEAD: u64 = 2;

/// The last round: a round a millisecond for 8,900 years. So no sum of a round and a few more overflows.
pub const ROUND_MAX: u64 = 1 << 48;

/// Samples a node may claim of one class in its statistics.
pub const CLASS_COUNT_MAX: u32 = 1 << 24;

/// Codes in class statistics are clipped by their sender to this times sqrt(readout rank).
pub const CODE_NORM_MAX: i64 = 4;

/// Pulls under way at once: one a step is enough, and one more covers a peer that does not answer.
pub const PULLS_MAX: usize = 2;

/// Pulls under way at once of a node that starts again: it says nothing before a quorum has told it what it said, so it
/// asks many at once. 24 MiB of answers at most.
pub const RECALLS_MAX: usize = 8;

/// How long a pull may take before another peer is asked, in ms. A late answer is taken in all the same.
pub const PULL_TIMEOUT_MS: u64 = 10_000;

/// How soon a node that waits asks a peer for what it may have missed, in ms; doubled each time, up to
/// [`HEAD_INTERVAL_MS`].
pub const PULL_INTERVAL_MS_MIN: u64 = 1_000;

/// How often a node that waits tells its mesh where it is (a head), in ms.
pub const HEAD_INTERVAL_MS: u64 = 5_000;

/// How long a head keeps out those of its author with lower numbers, in ms. Numbers begin with the author's clock: who
/// starts again with a clock that was set back is heard after that.
pub const HEAD_FRESH_MS: u64 = 2 * HEAD_INTERVAL_MS;

/// Peers whose heads are remembered.
pub const HEADS_MAX: usize = 256;
