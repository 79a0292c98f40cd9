//! On whose account something is done.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use super::{
    client::{Client, InHand},
    denied::Denied,
};

/// On whose account something is done. Places are shared among principals.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Principal {
    /// A client that has shown its key.
    Client(Arc<Client>),
    /// Whoever asks from this address, where nobody is asked for a key.
    Address(IpAddr),
}

impl Principal {
    /// Whoever asks from there. An address of IPv6 stands for its network of 64 bits, out of which anybody in it has as
    /// many addresses as he likes.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }

    /// The name of the key that was shown.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.client().map(Client::name)
    }

    /// Takes a request on, if there is room for it. What this gives is held until the request's answer has ended.
    ///
    /// # Errors
    /// When a limit of the key is reached.
    pub fn begin(&self) -> Result<Option<InHand>, Denied> {
        self.client().map(|client| client.begin()).transpose()
    }

    /// Whether the model that has these names may be used.
    ///
    /// # Errors
    /// When the key is for others.
    pub fn may_use(&self, names: &[String]) -> Result<(), Denied> {
        self.client().map_or(Ok(()), |client| client.may_use(names))
    }

    /// Takes the tokens of prompts from what the minute allows, before anything is made of them.
    ///
    /// # Errors
    /// When not so many are left.
    pub fn draw(&self, tokens: u64) -> Result<(), Denied> {
        self.client().map_or(Ok(()), |client| client.draw(tokens))
    }

    /// Nothing was made of the tokens that were drawn.
    pub fn give_back(&self, tokens: u64) {
        if let Some(client) = self.client() {
            client.give_back(tokens);
        }
    }

    /// A generation with a prompt of so many tokens begins.
    pub fn prompted(&self, tokens: u64) {
        if let Some(client) = self.client() {
            client.prompted(tokens);
        }
    }

    /// A token was generated.
    pub fn generated(&self) {
        if let Some(client) = self.client() {
            client.generated();
        }
    }

    fn client(&self) -> Option<&Client> {
        match self {
            Self::Client(client) => Some(client),
            Self::Address(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_without_a_key_is_known_by_where_he_asks_from() {
        let at = |address: &str| Principal::at(address.parse().expect("an address"));
        assert_eq!(at("10.0.0.1"), at("::ffff:10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
    }
}
