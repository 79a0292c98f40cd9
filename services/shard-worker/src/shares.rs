//! How much of what a worker has goes to each gateway, when several want it.

/// Something of which there is a certain amount: places, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    total: u64,
    /// Of it, what only gateways get that hold nothing.
    kept: u64,
}

/// A gateway that wants more.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wish {
    /// What it wants.
    pub more: u64,
    /// What it holds.
    pub holds: u64,
    /// What all gateways hold together.
    pub used: u64,
    /// Gateways that hold something, itself among them.
    pub gateways: u64,
}

impl Pool {
    /// This much, the last eighth of it for newcomers.
    pub(crate) fn of(total: u64) -> Self {
        Self { total, kept: total / 8 }
    }

    /// This much for who comes first, and an eighth more, at least one, for newcomers.
    pub(crate) fn with_places_for_newcomers(total: u64) -> Self {
        let kept = (total / 8).max(1);
        Self { total: total.saturating_add(kept), kept }
    }

    /// Whether a gateway gets more. One that is alone gets all but what is kept. Of several, whoever holds more than an
    /// equal share leaves as much again free, so that what is given back goes to those that hold less.
    pub(crate) fn grants(&self, wish: &Wish) -> bool {
        let after = wish.used.saturating_add(wish.more);
        let open = self.total - self.kept;
        if wish.holds == 0 {
            return after <= self.total;
        }
        let fair = open / wish.gateways.max(1);
        let free =
            if wish.holds.saturating_add(wish.more) <= fair { open } else { open - self.kept.min(open) };
        after <= free
    }
}

impl Wish {
    /// What one gateway wants, by what each holds.
    pub(crate) fn new<G: PartialEq>(gateway: G, more: u64, held: impl Iterator<Item = (G, u64)>) -> Self {
        let mut others: Vec<G> = vec![];
        let mut wish = Self { more, ..Self::default() };
        for (owner, held) in held.filter(|(_, held)| *held > 0) {
            wish.used = wish.used.saturating_add(held);
            if owner == gateway {
                wish.holds = wish.holds.saturating_add(held);
            } else if !others.contains(&owner) {
                others.push(owner);
            }
        }
        wish.gateways = others.len() as u64 + u64::from(wish.holds > 0);
        wish
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What gateways `0..` hold when each of `turns` has asked for one more.
    fn held(pool: Pool, turns: impl IntoIterator<Item = usize>) -> [u64; 3] {
        let mut held = [0; 3];
        turns.into_iter().for_each(|gateway| {
            asks(pool, &mut held, gateway, 1);
        });
        held
    }

    fn asks(pool: Pool, held: &mut [u64; 3], gateway: usize, more: u64) -> bool {
        let granted = pool.grants(&Wish::new(gateway, more, held.iter().copied().enumerate()));
        held[gateway] += if granted { more } else { 0 };
        granted
    }

    #[test]
    fn one_alone_gets_all_places_and_a_newcomer_still_gets_one() {
        for (places, extra) in [(1, 1), (7, 1), (64, 8)] {
            let pool = Pool::with_places_for_newcomers(places);
            assert_eq!(held(pool, [0; 100]), [places, 0, 0]);
            let mut held = held(pool, [0; 100]);
            assert!(asks(pool, &mut held, 1, 1), "a newcomer");
            assert!(!asks(pool, &mut held, 1, 1), "and no more while all are taken");
            assert_eq!(asks(pool, &mut held, 2, 1), extra > 1);
        }
    }

    #[test]
    fn what_is_given_back_goes_to_those_that_hold_less() {
        let pool = Pool::with_places_for_newcomers(64);
        let mut held = held(pool, [0; 64]);
        for _ in 0..200 {
            // The first gives one back and asks for as many as it can get, and then so does the second.
            held[0] -= 1;
            while asks(pool, &mut held, 0, 1) {}
            while asks(pool, &mut held, 1, 1) {}
        }
        assert!(held[0] <= 33 && held[1] >= 28, "{held:?}");
        assert!(asks(pool, &mut held, 2, 1), "and a third gets its first");
    }

    #[test]
    fn bytes_are_never_more_than_there_are() {
        let pool = Pool::of(800);
        let mut held = [0; 3];
        assert!(asks(pool, &mut held, 0, 800), "one session may take all when nobody holds anything");
        assert!(!asks(pool, &mut held, 0, 1) && !asks(pool, &mut held, 1, 1));
        let mut held = [0; 3];
        while asks(pool, &mut held, 0, 100) {}
        assert_eq!(held, [700, 0, 0], "alone it leaves what is kept");
        assert!(asks(pool, &mut held, 1, 60) && asks(pool, &mut held, 2, 40), "for newcomers");
        assert!(!asks(pool, &mut held, 1, 1), "which hold something now");
        assert!(!pool.grants(&Wish { more: u64::MAX, holds: 1, used: 800, gateways: 1 }), "no overflow");
    }
}
