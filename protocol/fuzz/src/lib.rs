//! What the fuzz targets do, as functions of bytes. They panic where the protocol breaks a promise.
//!
//! - [`decoders`]: whatever decodes is written as the same bytes
//! - [`load`]: a node starts from any disk
//! - [`machine`]: [`world::World`], honest nodes among liars; its module says what must hold
//!
//! The corpus test of `heterotune-protocol` includes this file, so nothing in it knows of the fuzzer.

pub mod bytes;
pub mod cast;
mod decoders;
pub mod liar;
mod load;
pub mod world;

pub use decoders::decoders;
pub use load::load;

/// A small network lives as the bytes say.
pub fn machine(bytes: &[u8]) {
    let mut bytes = bytes::Bytes::new(bytes);
    let cast = cast::Cast::of(bytes.byte());
    let mut world = world::World::new(cast);
    (0..cast.honest).for_each(|_| world.start(Default::default()));
    world.live(&mut bytes);
}
