//! Where idle jobs wait. Jobs that the matcher need not tell apart are of one class, so that what an expression costs is paid for each
//! class and kind of starter; the order is that of shares, priority and age.

use core::cmp::Reverse;

use super::*;

/// What the matcher goes by, besides the program. Expressions are text here; a [`Judge`] understands them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Terms {
    /// Which starters suit: a ClassAd expression.
    #[n(0)]
    pub requirements: Option<String>,
    /// Which of them suit better: a ClassAd expression.
    #[n(1)]
    pub rank: Option<String>,
    /// Jobs of a higher one go first.
    #[cbor(n(2), default)]
    pub priority: i32,
    /// Whose share of the pool they take; none is the share of all that name none.
    #[n(3)]
    pub accounting_group: Option<String>,
    /// The jobs' own attributes, with the text of their values.
    #[cbor(n(4), default)]
    pub attributes: Vec<(String, String)>,
    /// More of them, with values that differ from job to job.
    #[cbor(n(5), default)]
    pub own: Vec<(String, Template)>,
    /// Concurrency limits that they are counted against, by name, with how much each takes, in thousandths.
    #[cbor(n(6), default)]
    pub limits: Vec<(String, u32)>,
    /// What is asked for by expressions, by attribute: asked again when an attempt came to nothing.
    #[cbor(n(7), default)]
    pub requests: Vec<(String, String)>,
}

/// Understands the expressions of jobs; the language itself is none of the pool's business.
pub trait Judge: core::fmt::Debug + Send + Sync {
    /// What decides where such jobs may run, and a text that is the same for all jobs that are decided alike. None if the program's needs
    /// alone decide.
    fn terms(&self, terms: &Terms, program: &Program) -> Option<(String, Arc<dyn Match>)>;

    /// What decides what becomes of such jobs, if there is more to say than that they are done when they end.
    fn policy(&self, _terms: &Terms, _program: &Program) -> Option<Arc<dyn Policy>> {
        None
    }

    /// What a job asks for from now on by its [requests](Terms::requests), an attempt having come to nothing.
    fn anew(&self, _job: &JobView<'_>) -> Edit {
        Edit::default()
    }

    /// What tells when such jobs may start, if not at any time.
    fn timing(&self, _terms: &Terms, _program: &Program) -> Option<Arc<dyn Timing>> {
        None
    }
}

/// How a class of jobs finds starters of a kind, whatever their names, and for good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// None of them suits.
    Unfit,
    /// They suit.
    Fit {
        /// How well; higher is better.
        rank: f64,
        /// Seconds that one must have left, if it must be known.
        time_left: Option<u64>,
    },
    /// Each must be looked at, and again later.
    Varies,
}

/// The requirements and the rank of a class of jobs.
pub trait Match: core::fmt::Debug + Send + Sync {
    /// How well a starter suits; none if it doesn't. Higher is better.
    fn rank(&self, offer: &Offer, time_left: Option<Duration>) -> Option<f64>;

    /// The same of all starters that differ from this one in name and time left only.
    fn verdict(&self, offer: &Offer) -> Verdict;

    /// Does it prefer some starters to others?
    fn has_rank(&self) -> bool;

    /// Why a starter doesn't suit: the part of the requirements that it fails.
    fn refusal(&self, offer: &Offer, time_left: Option<Duration>) -> Option<String>;
}

/// Understands no expression: what has requirements suits nothing.
#[derive(Debug)]
struct Wordless;

impl Judge for Wordless {
    fn terms(&self, terms: &Terms, _: &Program) -> Option<(String, Arc<dyn Match>)> {
        let text = terms.requirements.clone()?;
        Some((text, Arc::new(Wordless)))
    }
}

impl Match for Wordless {
    fn rank(&self, _: &Offer, _: Option<Duration>) -> Option<f64> {
        None
    }

    fn verdict(&self, _: &Offer) -> Verdict {
        Verdict::Unfit
    }

    fn has_rank(&self) -> bool {
        false
    }

    fn refusal(&self, _: &Offer, _: Option<Duration>) -> Option<String> {
        Some("no expression is understood".to_owned())
    }
}

/// Who judges.
#[derive(Clone, Debug)]
pub(super) struct Bench(pub(super) Arc<dyn Judge>);

impl Default for Bench {
    fn default() -> Self {
        Bench(Arc::new(Wordless))
    }
}

/// What a job occupies and where its files are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Needs {
    cpus: u32,
    memory_mb: Option<u64>,
    gpus: u32,
    resources: Vec<(String, u32)>,
    /// It runs in its own directory or not at all.
    stays: bool,
    terms: Option<String>,
    limits: Arc<[Share]>,
}

/// Jobs that the matcher need not tell apart.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) stays: bool,
    pub(super) terms: Option<Arc<dyn Match>>,
    pub(super) limits: Arc<[Share]>,
    /// What was judged of kinds of starters.
    verdicts: BTreeMap<u32, Verdict>,
}

/// Classes, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    numbers: BTreeMap<Needs, u32>,
    classes: Vec<Class>,
    /// Kinds of starters: offers that differ in what no lasting verdict depends on.
    kinds: BTreeMap<Offer, u32>,
    any_rank: bool,
}

impl Classes {
    /// The class of such jobs.
    pub(super) fn of(&mut self, judge: &dyn Judge, program: &Program, terms: &Terms) -> u32 {
        let limits: Arc<[_]> = terms.limits.as_slice().into();
        let (text, terms) = judge.terms(terms, program).unzip();
        let stays = program.transfer == Transfer::No;
        let (cpus, memory_mb, gpus) = (program.cpus, program.memory_mb, program.gpus);
        let Classes { numbers, classes, any_rank, .. } = self;
        let resources = program.resources.clone();
        let needs = Needs { cpus, memory_mb, gpus, resources, stays, terms: text, limits: limits.clone() };
        *numbers.entry(needs).or_insert_with(|| {
            *any_rank |= terms.as_ref().is_some_and(|terms| terms.has_rank());
            classes.push(Class { stays, terms, limits, verdicts: BTreeMap::new() });
            classes.len() as u32 - 1
        })
    }

    /// The kind of starters that offer this.
    pub(super) fn kind(&mut self, offer: &Offer) -> u32 {
        let like = Offer { proxy: ProxyId(0), host: String::new(), ..offer.clone() };
        let next = self.kinds.len() as u32;
        *self.kinds.entry(like).or_insert(next)
    }

    /// Does any class prefer some starters to others?
    pub(super) fn any_rank(&self) -> bool {
        self.any_rank
    }

    pub(super) fn get(&self, class: u32) -> Option<&Class> {
        self.classes.get(class as usize)
    }

    pub(super) fn get_mut(&mut self, class: u32) -> Option<&mut Class> {
        self.classes.get_mut(class as usize)
    }
}

impl Class {
    /// How well a starter suits by the terms, as far as judged.
    pub(super) fn rank(&self, starter: &Starter, now: Time) -> Option<f64> {
        let Some(terms) = &self.terms else { return Some(0.0) };
        let left = starter.time_left(now);
        match self.verdicts.get(&starter.kind) {
            Some(Verdict::Unfit) => None,
            Some(Verdict::Fit { rank, time_left }) => {
                let lasts = |asked: &u64| left.is_some_and(|left| left.as_secs() >= *asked);
                time_left.as_ref().is_none_or(lasts).then_some(*rank)
            }
            Some(Verdict::Varies) | None => terms.rank(&starter.offer, left),
        }
    }

    /// The same, remembered where it lasts.
    pub(super) fn judge(&mut self, starter: &Starter, now: Time) -> Option<f64> {
        if let Some(terms) = &self.terms {
            self.verdicts.entry(starter.kind).or_insert_with(|| terms.verdict(&starter.offer));
        }
        self.rank(starter, now)
    }

    /// May a starter that didn't suit do so later?
    pub(super) fn varies(&self) -> bool {
        self.verdicts.values().any(|verdict| *verdict == Verdict::Varies)
    }
}

/// Begins the name of a limit that says itself what there is of it.
const AT_ONCE: &str = "max_materialize ";

/// What jobs are counted against of which no more than `most` of their cluster may be out at once; [`Pool::submit`] adds which cluster.
pub fn at_once(most: u32) -> Share {
    (format!("{AT_ONCE}{most}"), 1000)
}

/// Makes such limits the cluster's own.
pub(super) fn own_limits(limits: &mut [Share], cluster: u32) {
    for (name, _) in limits.iter_mut().filter(|(name, _)| name.starts_with(AT_ONCE)) {
        name.push_str(&format!(" of cluster {cluster}"));
    }
}

/// How many jobs may be out at once, by what they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// In thousandths, as what is used; what isn't named here has no limit.
    most: BTreeMap<String, u64>,
    used: BTreeMap<String, u64>,
}

impl Limits {
    pub(super) fn set(&mut self, most: impl Iterator<Item = (String, u32)>) {
        self.most = most.map(|(name, most)| (name, u64::from(most) * 1000)).collect();
    }

    /// What there is of a limit, if it is one.
    fn most_of(&self, name: &str) -> Option<u64> {
        let own = |name: &str| name.strip_prefix(AT_ONCE)?.split(' ').next()?.parse::<u64>().ok();
        self.most.get(name).copied().or_else(|| own(name).map(|most| most * 1000))
    }

    /// Those of a class that leave no room for a job of it, with what it takes, what is used, and what there is.
    pub(super) fn exhausted<'a>(&'a self, asked: &'a [Share]) -> impl Iterator<Item = (&'a str, u32, u64, u64)> + 'a {
        asked.iter().filter_map(|(name, share)| {
            let (most, used) = (self.most_of(name)?, self.used.get(name).copied().unwrap_or(0));
            (used + u64::from(*share) > most).then_some((name.as_str(), *share, used, most))
        })
    }

    pub(super) fn has_room(&self, asked: &[Share]) -> bool {
        self.exhausted(asked).next().is_none()
    }

    /// A job is out, or is out no more; might that make room that was lacking?
    pub(super) fn count(&mut self, asked: &[Share], goes: bool) -> bool {
        let full = !goes && !self.has_room(asked);
        for (name, share) in asked {
            let used = self.used.entry(name.clone()).or_default();
            *used = if goes { *used + u64::from(*share) } else { used.saturating_sub(u64::from(*share)) };
        }
        full
    }

    /// How many such jobs may be out at once.
    pub(super) fn most(&self, asked: &[Share]) -> u64 {
        let jobs = |(name, share): &Share| Some(self.most_of(name)? / u64::from(*share).max(1));
        asked.iter().filter_map(jobs).min().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
impl Limits {
    /// Panics unless what is used is what is taken for it, and no more than there may be.
    pub(super) fn recount<'a>(&self, out: impl Iterator<Item = &'a [Share]>) {
        let mut used: BTreeMap<String, u64> = BTreeMap::new();
        out.flatten().for_each(|(name, share)| *used.entry(name.clone()).or_default() += u64::from(*share));
        assert!(self.used.iter().all(|(name, n)| used.get(name).copied().unwrap_or(0) == *n));
        assert!(used.iter().all(|(name, n)| self.used.get(name) == Some(n)));
    }
}

/// Where a group of jobs stands in its account: by priority, then by age.
pub(super) type Place = (Reverse<i32>, u32, u32);

/// The jobs of one accounting group.
#[derive(Clone, Debug)]
struct Account {
    weight: u32,
    /// CPUs of its jobs that are out.
    load: u64,
    /// Groups that may have idle jobs, by class.
    waiting: BTreeMap<u32, BTreeSet<Place>>,
    /// The first of each class.
    heads: BTreeSet<(Place, u32)>,
}

impl Account {
    fn new(weight: u32) -> Self {
        Account { weight: weight.max(1), load: 0, waiting: BTreeMap::new(), heads: BTreeSet::new() }
    }

    /// Changes what waits of a class, and keeps its head true.
    fn change(&mut self, class: u32, change: impl FnOnce(&mut BTreeSet<Place>)) {
        let places = self.waiting.entry(class).or_default();
        let before = places.first().copied();
        change(places);
        let after = places.first().copied();
        if places.is_empty() {
            self.waiting.remove(&class);
        }
        if before != after {
            if let Some(place) = before {
                self.heads.remove(&(place, class));
            }
            self.heads.extend(after.map(|place| (place, class)));
        }
    }
}

/// Groups that may have idle jobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    names: BTreeMap<Option<String>, usize>,
    accounts: Vec<Account>,
    weights: BTreeMap<String, u32>,
    /// Was any priority but 0 ever asked for?
    priorities: bool,
}

impl Queue {
    /// The account of a name.
    pub(super) fn account(&mut self, name: Option<&str>) -> usize {
        let name = name.map(str::to_owned);
        let Queue { names, accounts, weights, .. } = self;
        let weight = name.as_ref().and_then(|name| weights.get(name)).copied().unwrap_or(1);
        *names.entry(name).or_insert_with(|| {
            accounts.push(Account::new(weight));
            accounts.len() - 1
        })
    }

    pub(super) fn set_weights(&mut self, weights: BTreeMap<String, u32>) {
        for (name, account) in &self.names {
            let weight = name.as_ref().and_then(|name| weights.get(name)).copied().unwrap_or(1);
            if let Some(account) = self.accounts.get_mut(*account) {
                account.weight = weight.max(1);
            }
        }
        self.weights = weights;
    }

    pub(super) fn has_priorities(&self) -> bool {
        self.priorities
    }

    pub(super) fn add(&mut self, account: usize, class: u32, place: Place) {
        self.priorities |= place.0.0 != 0;
        if let Some(account) = self.accounts.get_mut(account) {
            account.change(class, |places| places.extend([place]));
        }
    }

    pub(super) fn remove(&mut self, account: usize, class: u32, place: Place) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.change(class, |places| {
                places.remove(&place);
            });
        }
    }

    /// CPUs go to jobs of an account, or come back.
    pub(super) fn load(&mut self, account: usize, cpus: u32, goes: bool) {
        if let Some(account) = self.accounts.get_mut(account) {
            let cpus = u64::from(cpus);
            account.load = if goes { account.load + cpus } else { account.load.saturating_sub(cpus) };
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accounts.iter().all(|account| account.heads.is_empty())
    }

    /// Does anyone but one account wait?
    pub(super) fn is_shared(&self) -> bool {
        self.accounts.iter().filter(|account| !account.heads.is_empty()).nth(1).is_some()
    }

    /// The first group of each class that waits, in the order in which they are served.
    pub(super) fn heads(&self) -> impl Iterator<Item = (u32, Place)> + '_ {
        let mut accounts: Vec<&Account> = self.accounts.iter().filter(|account| !account.heads.is_empty()).collect();
        // The smallest share first: load by weight, without fractions.
        accounts.sort_by(|a, b| (a.load * u64::from(b.weight)).cmp(&(b.load * u64::from(a.weight))));
        accounts.into_iter().flat_map(|account| account.heads.iter().map(|(place, class)| (*class, *place)))
    }

    /// The groups of a class that wait, of all accounts, each account's in order.
    pub(super) fn of_class(&self, class: u32) -> impl Iterator<Item = Place> + '_ {
        self.accounts.iter().filter_map(move |account| account.waiting.get(&class)).flatten().copied()
    }

    /// All groups that wait.
    pub(super) fn all(&self) -> impl Iterator<Item = Place> + '_ {
        self.accounts.iter().flat_map(|account| account.waiting.values()).flatten().copied()
    }
}

#[cfg(test)]
impl Queue {
    /// Panics unless loads and heads are what they are taken for.
    pub(super) fn recount(&self, out: impl Iterator<Item = (usize, u32)>) {
        let mut loads = vec![0; self.accounts.len()];
        out.for_each(|(account, cpus)| loads[account] += u64::from(cpus));
        for (account, load) in self.accounts.iter().zip(loads) {
            assert_eq!(account.load, load);
            let first = |(class, places): (&u32, &BTreeSet<Place>)| places.first().map(|place| (*place, *class));
            assert_eq!(account.heads, account.waiting.iter().filter_map(first).collect());
            assert!(account.waiting.values().all(|places| !places.is_empty()));
        }
    }
}
