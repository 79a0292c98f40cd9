//! How the nodes of a swarm give each other the pieces of model files.
//!
//! A stream is between two nodes. The one that opens it fetches, the other one seeds; two nodes that fetch from each
//! other have two streams. A [`Seeder`] serves streams from a [`Shelf`] of stores, a [`Fetcher`] fills a store from
//! several peers at once, and where they do not do, from an [`Origin`] outside of the swarm. Streams and who is known
//! to hold what come through [`Peers`]. What pieces are, how they are checked and kept, and which to ask of whom is for
//! `model-torrent`; which pieces a node needs is left to others.

mod answering;
mod assembly;
mod book;
mod causes;
mod conversation;
mod error;
mod fetcher;
mod fetchers;
mod first;
mod frames;
mod limits;
mod link;
mod links;
mod load;
mod metrics;
mod origin;
mod origin_reads;
mod pace;
mod peers;
mod progress;
mod queue;
mod seats;
mod seeder;
mod shelf;
mod speed;
mod wire;

pub use causes::{Away, Refusal};
pub use error::ExchangeError;
pub use fetcher::{Fetcher, Wanted};
pub use fetchers::Fetchers;
pub use limits::{FetchLimits, SeedLimits};
pub use metrics::{Left, Metrics, OriginFailure};
pub use origin::{Origin, OriginError, Reading};
pub use peers::{Banned, Peers};
pub use progress::Progress;
pub use seeder::Seeder;
pub use shelf::{Shelf, Shelved};
