//! What a person or a script asks for.

pub mod decode;
pub mod replay;
