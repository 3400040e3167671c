//! stub
pub mod charter;
pub mod codec;
pub mod limits;
pub mod mixture;
#[cfg(test)]
mod testing;
pub mod wire;
