//! How much a port holds, and for how long.

use std::time::Duration;

/// How many connections a port holds, and how long it waits for what they bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Connections at once that have asked something, and requests in hand at once on all of them, but for `streams`
    /// more. Requests beyond that wait. There must be more of them than may run long, or these keep all others out. 0
    /// counts as one.
    pub connections: usize,
    /// Connections besides those that have asked nothing yet, or whose requests wait.
    pub entrance: usize,
    /// Requests at once on one HTTP/2 connection; more wait.
    pub streams: u32,
    /// A client that has sent no whole head of a request for so long, on a new connection or after an answer by
    /// HTTP/1, sends none. A request waits as long for its place. On a connection that is to end, a client has as long
    /// from its last reading to read more of its last answer.
    pub head: Duration,
    /// When room runs short, a new connection is not ended for another before this: its request may be on its way.
    pub spared: Duration,
    /// When places run short, a client may leave us waiting for so long with a request in hand.
    pub stalled: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            entrance: 512,
            streams: 32,
            head: Duration::from_secs(30),
            spared: Duration::from_millis(200),
            stalled: Duration::from_secs(5),
        }
    }
}

impl Bounds {
    /// The same on a port where so many requests may run long: other requests still find a place.
    #[must_use]
    pub fn beside(self, long: u32) -> Self {
        Self { connections: self.connections + long as usize, ..self }
    }
}
