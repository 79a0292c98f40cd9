//! What nodes tell about themselves where all can read it: signed announcements in the DHT, and registrations at
//! rendezvous servers.

pub(crate) mod announcer;
pub(crate) mod publisher;
pub(crate) mod queries;
pub(crate) mod records;
pub(crate) mod registrations;
pub(crate) mod signed;
