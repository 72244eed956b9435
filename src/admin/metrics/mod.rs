//! What Prometheus and those who start us ask, over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! ```text
//! http: who may ask, how long and how much --> scraper: what the engine says --> families, exposition: names, helps, text
//!                                                pulse: what the engine's thread tells of itself
//!                                                process: what the kernel knows about us
//! ```
//!
//! A scrape changes nothing. It asks the engine as the admin API does, in questions that are short also for a million
//! routes, and reads the rest from places where it is left for it: a slow client, or many of them, cost the engine
//! nothing.

mod exposition;
mod families;
mod http;
mod process;
mod pulse;
mod scraper;

pub use http::{MetricsBindError, MetricsListener};
pub use process::resident_bytes;
pub use pulse::{Pulse, Queue};
pub use scraper::Scraper;
