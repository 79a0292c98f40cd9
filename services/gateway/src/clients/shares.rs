//! Places of which no principal has all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::principal::Principal;

/// A principal leaves one in so many places to others.
const LEFT_TO_OTHERS: usize = 4;

/// Places of which no principal has all. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    places: usize,
    taken: Arc<Mutex<HashMap<Principal, usize>>>,
}

impl Shares {
    pub(crate) fn new(places: usize) -> Self {
        Self { places, taken: Arc::default() }
    }

    /// A place, held until it is dropped; none when all are taken, or all but those that are left to others.
    pub(crate) fn take(&self, principal: &Principal) -> Option<Share> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let own = taken.get(principal).copied().unwrap_or(0);
        if all >= self.places || own >= self.places - self.places / LEFT_TO_OTHERS {
            return None;
        }
        taken.insert(principal.clone(), own + 1);
        drop(taken);
        Some(Share { shares: self.clone(), principal: principal.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Principal, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Shares,
    principal: Principal,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        if let Some(own) = taken.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_principal_leaves_places_to_others() {
        let (one, other) = ([1, 2]).map(|last| Principal::at([10, 0, 0, last].into())).into();
        let shares = Shares::new(8);
        let mut held: Vec<_> = std::iter::from_fn(|| shares.take(&one)).collect();
        assert_eq!(held.len(), 6);
        let others: Vec<_> = std::iter::from_fn(|| shares.take(&other)).collect();
        assert_eq!(others.len(), 2, "all places are taken now");
        held.pop();
        assert!(shares.take(&other).is_some());
        drop((held, others));
        assert!(shares.taken().is_empty());
        assert!(Shares::new(1).take(&one).is_some());
    }
}
