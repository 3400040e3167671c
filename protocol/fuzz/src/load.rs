//! A node that starts from a disk on which anything may be.

use super::{
    bytes::Bytes,
    cast::{Cast, MEMBERS},
    liar::{alter_seal, alter_state},
    world::World,
};
use heterotune_protocol::{message::Step, round::Saved};
use std::sync::OnceLock;

/// The networks: one sealer or four, without genesis or with it, closing by everyone or the leader.
const NETWORKS: usize = 8;

fn cast(network: usize) -> Cast {
    Cast::of(1 + (network % 2 + network / 2 * 4) as u8)
}

/// What was kept in the lives of the networks when nobody disturbed them.
fn kept() -> &'static [Saved] {
    static ALL: OnceLock<Vec<Saved>> = OnceLock::new();
    let live = |network| {
        let mut world = World::new(cast(network).honest());
        (0..MEMBERS).for_each(|_| world.start(Saved::default()));
        world.run(800);
        world.saved()
    };
    ALL.get_or_init(|| (0..NETWORKS).map(live).collect())
}

/// What the bytes make of it is a node's disk; the rest of the bytes is what happens to the node.
pub fn load(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let network = bytes.below(NETWORKS);
    let kept = &kept()[network];
    let mut world = World::new(cast(network).alone());
    let mut found = Saved::default();
    if bytes.once_in(2) {
        found = kept.clone();
    }
    for _ in 0..bytes.below(32) {
        match bytes.byte() % 8 {
            0 => found.messages.extend(bytes.pick(&kept.messages).cloned()),
            1 => {
                let Some(mut message) = bytes.pick(&kept.messages).cloned() else { continue };
                bytes.garble(&mut message);
                found.messages.push(message);
            }
            2 => {
                let (author, step) = (1 + bytes.below(MEMBERS - 1), Step::Round(1 + bytes.below(4) as u64));
                let said = world.heard().say(&mut bytes, author, step);
                found.messages.extend(said.iter().map(|message| message.bytes.clone()));
            }
            3 => found.messages.push(bytes.take(16).to_vec()),
            4 => found.checkpoints.extend(bytes.pick(&kept.checkpoints).cloned()),
            5 => {
                let Some(mut state) = bytes.pick(&kept.checkpoints).cloned() else { continue };
                (0..1 + bytes.below(3)).for_each(|_| alter_state(&mut bytes, &mut state));
                found.checkpoints.push(state);
            }
            6 => found.seals.extend(bytes.pick(&kept.seals).cloned()),
            _ => {
                let Some(mut seal) = bytes.pick(&kept.seals).cloned() else { continue };
                alter_seal(&mut bytes, &mut seal);
                found.seals.push(seal);
            }
        }
    }
    world.start(found);
    world.run(40);
    world.live(&mut bytes);
}
