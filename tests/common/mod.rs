//! What the whole-network tests share.
#![allow(dead_code, reason = "each test target uses a part of it")]

pub(crate) mod gate;
pub(crate) mod hosts;
pub(crate) mod inputs;
pub(crate) mod lab;
pub(crate) mod process;
pub(crate) mod scenario;
