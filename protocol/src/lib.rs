//! Everything that two nodes of a HeteroTune network must agree on, without any I/O.
//!
//! # Layout
//! - what is agreed on beforehand: [`charter`], [`admission`] (who may join), [`limits`], [`mixture`] (the shape of what
//!   is shared)
//! - who comes later: [`enrolment`]
//! - what travels: [`wire`] (strict CBOR), [`message`] (signed envelopes, requests), [`codec`] (updates as integers),
//!   [`verdict`] (why a message is refused)
//! - what is computed, to the same bits everywhere: [`genesis`] (reference and starting readout), [`fuse`] (CMGA)
//! - what is final: [`roster`] (who contributes), [`seal`] (lists, votes, certificates)
//! - what ties it together: [`ledger`] (grow-only sets a step), [`round`] (the machine)
//!
//! The types to know are [`round::State`], which decides everything a node does, and [`charter::Charter`].
//!
//! # What never comes in
//! Time (`Now` is a number), sockets, threads (but scoped, order-free ones inside [`fuse`]), tensors, randomness, and
//! floating point beyond `+ - * / sqrt` in a fixed order.

pub mod admission;
pub mod charter;
pub mod codec;
pub mod enrolment;
pub mod fuse;
pub mod genesis;
pub mod ledger;
pub mod limits;
pub mod manifest;
pub mod memo;
pub mod message;
pub mod mixture;
pub mod roster;
pub mod round;
pub mod seal;
#[cfg(test)]
mod testing;
pub mod verdict;
pub mod wire;
