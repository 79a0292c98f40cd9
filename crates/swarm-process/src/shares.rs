//! A bounded amount of something that clients hold, shared fairly among the addresses they come from.
//!
//! While there is enough, all get what they ask for. When it runs short, whoever may go gives way to newcomers: first
//! at the address that holds most, there first who may go for longest. What gets free goes to who waits at the address
//! that holds least. So one address may have all there is while nobody else wants it, as the clients behind a proxy do,
//! and keeps nobody else out.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Whoever is dismissed is gone within milliseconds, unless its client is not there or still reads an answer: then
/// another has to go as well.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(1);
/// One client has at least so many of an IPv6 address's bits to itself.
const OWN_BITS: u32 = 64;

/// How much there is, and how it is given.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// In all; 0 counts as one.
    pub amount: usize,
    /// So many may wait; more are refused at once.
    pub waiting: usize,
    /// Nobody is dismissed before it has had its share for so long.
    pub spared: Duration,
    /// A share is free as soon as its holder is told to go, however long the holder takes.
    pub at_once: bool,
}

/// So many wait already that no more may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many wait already")]
pub struct Crowded;

/// What is shared. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    terms: Terms,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    next_id: u64,
    held: BTreeMap<u64, Holder>,
    of_addresses: HashMap<IpAddr, usize>,
    /// By age.
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Holder {
    address: IpAddr,
    amount: usize,
    /// From when on it may be dismissed, if it may at all.
    may_go: Option<Instant>,
    told: Option<Instant>,
    dismissed: CancellationToken,
}

#[derive(Debug)]
struct Waiter {
    address: IpAddr,
    amount: usize,
    dismissed: CancellationToken,
    answer: oneshot::Sender<Share>,
}

/// What one client holds, until it is dropped.
#[derive(Debug)]
pub struct Share {
    id: u64,
    shares: Arc<Inner>,
    dismissed: CancellationToken,
}

impl Shares {
    /// All is free.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        let terms = Terms { amount: terms.amount.max(1), ..terms };
        let state = State {
            free: terms.amount,
            next_id: 0,
            held: BTreeMap::new(),
            of_addresses: HashMap::new(),
            waiting: BTreeMap::new(),
        };
        Self(Arc::new(Inner { terms, state: Mutex::new(state) }))
    }

    /// So much for a client at `address`, when its turn comes; no more than there is in all. Cancel safe.
    ///
    /// # Errors
    /// When too many wait.
    pub async fn take(&self, address: IpAddr, amount: usize) -> Result<Share, Crowded> {
        self.take_until(address, amount, CancellationToken::new()).await
    }

    /// The same; `dismissed` is how the holder hears that it should go.
    ///
    /// # Errors
    /// When too many wait.
    pub(crate) async fn take_until(
        &self,
        address: IpAddr,
        amount: usize,
        dismissed: CancellationToken,
    ) -> Result<Share, Crowded> {
        let amount = amount.min(self.0.terms.amount);
        let mut share = self.0.ask(Waiter::new(client(address), amount, dismissed))?;
        loop {
            let look_again = self.0.balance();
            tokio::select! {
                biased;
                share = &mut share => return Ok(share.expect("who waits is answered")),
                () = sleep_until(look_again) => {}
            }
        }
    }

    /// Tells one that may go to do so, whether or not its share is wanted; says whether there was one.
    pub(crate) fn dismiss_one(&self) -> bool {
        self.0.state().dismiss(&self.0.terms, Instant::now())
    }
}

impl Share {
    /// Resolves when the share is wanted for another.
    pub async fn dismissed(&self) {
        self.dismissed.cancelled().await;
    }

    /// From when on the holder may be dismissed; not at all while it does what only it can do.
    pub(crate) fn may_go(&self, may_go: Option<Instant>) {
        let mut state = self.shares.state();
        if let Some(holder) = state.held.get_mut(&self.id) {
            holder.may_go = may_go;
        }
        let wanted = !state.waiting.is_empty();
        drop(state);
        if wanted {
            self.shares.balance();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.shares.state();
        state.release(self.id);
        let wanted = !state.waiting.is_empty();
        drop(state);
        if wanted {
            self.shares.balance();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(
        &self,
        (waiter, share): (Waiter, oneshot::Receiver<Share>),
    ) -> Result<oneshot::Receiver<Share>, Crowded> {
        let mut state = self.state();
        state.forget_gone();
        let must_wait = !state.waiting.is_empty() || waiter.amount > state.free;
        if must_wait && state.waiting.len() >= self.terms.waiting {
            return Err(Crowded);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.insert(id, waiter);
        Ok(share)
    }

    /// Gives what is free, and tells so many to go that all who wait get theirs. Says when to look again.
    fn balance(self: &Arc<Self>) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        state.forget_gone();
        let mut given = vec![];
        loop {
            while let Some((waiter, id)) = state.give(&self.terms, now) {
                let share = Share { id, shares: self.clone(), dismissed: waiter.dismissed };
                given.push((waiter.answer, share));
            }
            if !state.lacks(now) || !state.dismiss(&self.terms, now) {
                break;
            }
        }
        let look_again = if state.waiting.is_empty() { now } else { state.next_change(now) };
        drop(state);
        for (answer, share) in given {
            // Of one that left meanwhile; its share is dropped here and gets to the next.
            let _ = answer.send(share);
        }
        look_again
    }
}

impl Waiter {
    fn new(address: IpAddr, amount: usize, dismissed: CancellationToken) -> (Self, oneshot::Receiver<Share>) {
        let (answer, share) = oneshot::channel();
        (Self { address, amount, dismissed, answer }, share)
    }
}

impl State {
    fn forget_gone(&mut self) {
        self.waiting.retain(|_, waiter| !waiter.answer.is_closed());
    }

    fn of_address(&self, address: &IpAddr) -> usize {
        self.of_addresses.get(address).copied().unwrap_or_default()
    }

    /// To whoever waits at the address that holds least, if enough is free for it; nobody else goes before it, or who
    /// wants much would never get it.
    fn give(&mut self, terms: &Terms, now: Instant) -> Option<(Waiter, u64)> {
        let next = self.waiting.iter().min_by_key(|(id, waiter)| (self.of_address(&waiter.address), **id));
        let id = next.filter(|(_, waiter)| waiter.amount <= self.free).map(|(id, _)| *id)?;
        let waiter = self.waiting.remove(&id)?;
        let Waiter { address, amount, ref dismissed, .. } = waiter;
        self.free -= amount;
        *self.of_addresses.entry(address).or_default() += amount;
        let may_go = Some(now + terms.spared);
        let holder = Holder { address, amount, may_go, told: None, dismissed: dismissed.clone() };
        self.held.insert(id, holder);
        Some((waiter, id))
    }

    fn release(&mut self, id: u64) {
        let Some(Holder { address, amount, .. }) = self.held.remove(&id) else { return };
        self.free += amount;
        let left = self.of_address(&address).saturating_sub(amount);
        match left {
            0 => self.of_addresses.remove(&address),
            left => self.of_addresses.insert(address, left),
        };
    }

    /// Whether less is free, or will soon be, than is waited for.
    fn lacks(&self, now: Instant) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let wanted: usize = self.waiting.values().map(|waiter| waiter.amount).sum();
        let leaving = |holder: &&Holder| holder.told.is_some_and(|told| now < told + GONE_WITHIN);
        wanted > self.free + self.held.values().filter(leaving).map(|holder| holder.amount).sum::<usize>()
    }

    /// Tells one to go, if one may.
    fn dismiss(&mut self, terms: &Terms, now: Instant) -> bool {
        let may_go = |holder: &Holder| holder.may_go.filter(|then| holder.told.is_none() && *then <= now);
        let candidates = self.held.iter().filter_map(|(id, holder)| Some((may_go(holder)?, id, holder)));
        let first = candidates.max_by_key(|(since, id, holder)| {
            (self.of_address(&holder.address), std::cmp::Reverse((*since, **id)))
        });
        let Some(id) = first.map(|(_, id, _)| *id) else { return false };
        let holder = self.held.get_mut(&id).expect("it was just found");
        holder.told = Some(now);
        holder.dismissed.cancel();
        if terms.at_once {
            self.release(id);
        }
        true
    }

    /// When another may be dismissed. Nothing else changes without `balance` being called.
    fn next_change(&self, now: Instant) -> Instant {
        let change = |holder: &Holder| match holder.told {
            Some(told) => Some(told + GONE_WITHIN),
            None => holder.may_go,
        };
        let changes = self.held.values().filter_map(change).filter(|then| *then > now);
        changes.min().unwrap_or(now + GONE_WITHIN)
    }
}

/// By what a client is known: its address, or the part of it that is its own.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> OWN_BITS << OWN_BITS).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::{task::JoinHandle, time::timeout};

    use super::*;

    /// Long enough for anything that should come at all.
    const SOON: Duration = Duration::from_secs(20);

    fn shares(amount: usize, spared: Duration) -> Shares {
        Shares::new(Terms { amount, waiting: 4, spared, at_once: false })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// One that waits in the background.
    fn wants(shares: &Shares, last: u8, amount: usize) -> JoinHandle<Share> {
        let shares = shares.clone();
        tokio::spawn(async move { shares.take(address(last), amount).await.unwrap() })
    }

    async fn gets(waiter: JoinHandle<Share>) -> Share {
        timeout(SOON, waiter).await.expect("it gets its share").unwrap()
    }

    async fn is_told_to_go(share: &Share) {
        timeout(SOON, share.dismissed()).await.expect("it is told to go");
    }

    fn stays(share: &Share) -> bool {
        share.dismissed().now_or_never().is_none()
    }

    #[tokio::test]
    async fn one_address_may_hold_all_there_is_until_another_wants_some() {
        let shares = shares(3, Duration::from_millis(20));
        let mut big = vec![];
        for _ in 0..3 {
            big.push(shares.take(address(1), 1).await.unwrap());
        }
        let small = wants(&shares, 2, 1);
        is_told_to_go(&big[0]).await;
        assert!(stays(&big[1]) && stays(&big[2]), "one is enough");
        big.remove(0);
        let small = gets(small).await;
        // The small one may go for longer than the others; they go before it.
        small.may_go(Some(Instant::now()));
        big.iter().for_each(|share| share.may_go(Some(Instant::now())));
        let third = wants(&shares, 3, 1);
        is_told_to_go(&big[0]).await;
        assert!(stays(&small));
        big.remove(0);
        gets(third).await;
    }

    #[tokio::test]
    async fn what_gets_free_goes_to_the_address_that_holds_least() {
        let shares = shares(2, SOON);
        let one = shares.take(address(1), 1).await.unwrap();
        let _two = shares.take(address(1), 1).await.unwrap();
        let mut again = Box::pin(shares.take(address(1), 1));
        let mut other = Box::pin(shares.take(address(2), 1));
        assert!(again.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
        drop(one);
        assert!(again.as_mut().now_or_never().is_none(), "it came first, but has one already");
        assert!(other.now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_must_stay_stays_and_who_does_not_leave_is_not_waited_for() {
        let shares = shares(2, Duration::ZERO);
        let busy = shares.take(address(1), 1).await.unwrap();
        busy.may_go(None);
        let deaf = shares.take(address(1), 1).await.unwrap();
        let newcomer = wants(&shares, 2, 1);
        is_told_to_go(&deaf).await;
        assert!(stays(&busy));
        busy.may_go(Some(Instant::now()));
        is_told_to_go(&busy).await;
        assert!(!newcomer.is_finished());
        drop(busy);
        gets(newcomer).await;
    }

    #[tokio::test]
    async fn at_once_means_that_nobody_waits_for_the_one_who_goes() {
        let shares = Shares::new(Terms { amount: 1, waiting: 1, spared: Duration::ZERO, at_once: true });
        let old = shares.take(address(1), 1).await.unwrap();
        let new = shares.take(address(1), 1).now_or_never().expect("at once").unwrap();
        assert!(!stays(&old) && stays(&new));
        drop(old);
        assert_eq!(shares.0.state().free, 0, "what was released once is not released again");
        drop(new);
        assert_eq!(shares.0.state().free, 1);
    }

    #[tokio::test]
    async fn large_amounts_get_their_turn_and_the_number_of_those_who_wait_is_bounded() {
        let shares = shares(10, Duration::from_millis(20));
        let mut all = vec![];
        for last in 1..=5 {
            all.push(shares.take(address(last), 2).await.unwrap());
        }
        let large = wants(&shares, 9, 99);
        for share in &all {
            is_told_to_go(share).await;
        }
        let mut others: Vec<_> = (0..4).map(|_| Box::pin(shares.take(address(9), 1))).collect();
        let refused: Vec<_> = others.iter_mut().map(|other| other.as_mut().now_or_never()).collect();
        assert!(refused[..3].iter().all(Option::is_none), "{refused:?}");
        assert!(matches!(refused[3], Some(Err(Crowded))), "{refused:?}");
        drop((others, refused, all));
        drop(gets(large).await);
        assert_eq!(shares.0.state().free, 10);
    }

    #[test]
    fn a_client_is_known_by_the_part_of_its_address_that_is_its_own() {
        let known = |text: &str| client(text.parse().unwrap());
        assert_eq!(known("2001:db8:1:2:3::9"), known("2001:db8:1:2:ffff::1"));
        assert_ne!(known("2001:db8:1:2::1"), known("2001:db8:1:3::1"));
        assert_eq!(known("::ffff:10.0.0.1"), known("10.0.0.1"));
        assert_ne!(known("10.0.0.2"), known("10.0.0.1"));
    }
}
