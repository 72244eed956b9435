//! Where routes come from: sockets on one side, `SourceEvent`s in batches on the other. Sees `wire` and `model` only;
//! knows neither what the engine makes of them nor the kernel.

pub mod fpm;
pub mod northbound;
pub mod replies;
mod zebra_process;
