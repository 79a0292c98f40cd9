//! Where a process can be reached, written for whoever started it with port 0.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use swarm_types::NodeId;

/// The flag of a process that is to tell where it can be reached.
#[derive(Args, Clone, Debug)]
pub struct AddressFile {
    /// Write where this process can be reached to this file, as JSON, once its ports are open.
    #[arg(long, env = "LLAMA_SWARM_ADDRESS_FILE", value_name = "FILE")]
    address_file: Option<PathBuf>,
}

impl AddressFile {
    /// Writes the file, if it was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tell(&self, addresses: impl FnOnce() -> Addresses) -> io::Result<()> {
        let Some(file) = &self.address_file else { return Ok(()) };
        addresses().write(file).map_err(|error| {
            let message = format!("cannot write {} (--address-file): {error}", file.display());
            io::Error::new(error.kind(), message)
        })
    }
}

/// What a process listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The node's peer id.
    pub peer_id: NodeId,
    /// Multiaddresses that peers dial.
    pub addresses: Vec<String>,
    /// TCP gRPC port.
    pub grpc: SocketAddr,
    /// HTTP port, on a gateway.
    pub http: Option<SocketAddr>,
    /// Port of metrics alone, on a gateway that has one.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
}

impl Addresses {
    /// Writes them as JSON. The file appears complete or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        let part = path.with_extension("part");
        std::fs::write(&part, format!("{json}\n"))?;
        std::fs::rename(&part, path)
    }

    /// Reads what a process wrote; nothing while it has not.
    ///
    /// # Errors
    /// When the file cannot be read or is not an address file.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back_as_written_and_absent_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.json");
        assert_eq!(Addresses::read(&path).unwrap(), None);
        let addresses = Addresses {
            peer_id: "12D3KooWa".parse().unwrap(),
            addresses: vec!["/ip4/127.0.0.1/udp/4001/quic-v1/p2p/12D3KooWa".into()],
            grpc: "127.0.0.1:50050".parse().unwrap(),
            http: None,
            metrics: None,
        };
        addresses.write(&path).unwrap();
        assert_eq!(Addresses::read(&path).unwrap(), Some(addresses));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_none_is_written_unasked() {
        let not_asked = AddressFile { address_file: None };
        not_asked.tell(|| unreachable!("nobody wants to know")).unwrap();
        let addresses = Addresses {
            peer_id: "12D3KooWa".parse().unwrap(),
            addresses: vec![],
            grpc: "127.0.0.1:50050".parse().unwrap(),
            http: None,
            metrics: None,
        };
        let nowhere = AddressFile { address_file: Some("/not/there.json".into()) };
        let error = nowhere.tell(|| addresses).unwrap_err();
        assert!(error.to_string().starts_with("cannot write /not/there.json (--address-file)"), "{error}");
    }
}
