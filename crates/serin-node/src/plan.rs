//! What to start, stop and kill: a pure function of the slots, of what is desired and of the time.
//!
//! Properties (tested below): a slot with a process is never started; a slot that nobody wants ends, by force if it must; the
//! wait before a start never shrinks from one failure to the next; while something is to be done later, [`wake_at`] says when.

use std::collections::BTreeMap;
use std::time::Duration;

/// Monotonic time since the supervisor started.
pub type Tick = Duration;

/// How fast a slot is started again after its process ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A process that was ready for this long is started again at once.
    pub quick_after: Duration,
    /// Wait after the first failure; it doubles with each one.
    pub first: Duration,
    /// Longest wait when the process did not get ready.
    pub max: Duration,
    /// Longest wait when it had been ready: between its failures such a slot serves, so that it is worth more haste.
    pub max_once_ready: Duration,
    /// Failures are forgotten after being ready for this long.
    pub calm_after: Duration,
}

impl Pace {
    /// For replicas. At most a second after a ready one, so that it is back within five with a start of up to four.
    pub const REPLICA: Pace = Pace {
        quick_after: Duration::from_secs(10),
        first: Duration::from_millis(200),
        max: Duration::from_secs(30),
        max_once_ready: Duration::from_secs(1),
        calm_after: Duration::from_secs(60),
    };

    /// For control and the gateway: however often they die, they are back within a second.
    pub const FIXED: Pace = Pace {
        quick_after: Duration::from_secs(1),
        first: Duration::from_millis(50),
        max: Duration::from_secs(1),
        max_once_ready: Duration::from_millis(200),
        calm_after: Duration::from_secs(60),
    };

    /// Wait before the next start after `failures` failures in a row, the last of which `had_been_ready`. 0 failures: no wait.
    #[must_use]
    pub fn delay(&self, failures: u32, had_been_ready: bool) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let cap = if had_been_ready { self.max_once_ready } else { self.max };
        // 2^20 times the first wait is beyond any cap.
        self.first.saturating_mul(1 << doublings.min(20)).min(cap)
    }
}

/// What a slot should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Identity of the process and its environment: another one means stop and start.
    pub identity: String,
    /// Back-off.
    pub pace: Pace,
    /// Longest time without readiness before it is ended and started anew; `None`: for ever.
    pub ready_timeout: Option<Duration>,
    /// Time from the stop signal to the kill.
    pub stop_timeout: Duration,
}

/// What is wished for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Run this.
    Run(Want),
    /// Leave it as it is: neither start nor stop it.
    Keep,
    /// End it and keep its folder.
    End,
    /// End it and remove its folder.
    Forget,
}

/// What is wished for all slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// By slot name.
    pub slots: BTreeMap<String, Wish>,
    /// For slots that are not listed; never [`Wish::Run`].
    pub others: Wish,
}

impl Desired {
    /// The wish for one slot.
    #[must_use]
    pub fn wish(&self, slot: &str) -> &Wish {
        self.slots.get(slot).unwrap_or(&self.others)
    }
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no process; the next start is not before this time.
    Down {
        /// Time of the next start.
        next_start: Tick,
    },
    /// A start is under way.
    Launching,
    /// The process runs and is not ready.
    Starting {
        /// Since when.
        since: Tick,
    },
    /// It answers.
    Ready {
        /// Since when.
        since: Tick,
    },
    /// It was told to end.
    Stopping {
        /// Why.
        why: Why,
        /// When it is killed; `None`: it was.
        kill_at: Option<Tick>,
    },
}

/// Why a process is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody wants it, or not as it is.
    Unwanted,
    /// It did not get ready in time, which counts as a failure.
    NotReady,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where it is in its life.
    pub phase: Phase,
    /// Identity of what runs, or of what ran last.
    pub identity: String,
    /// Failures in a row.
    pub failures: u32,
    /// Starts so far.
    pub starts: u64,
    pace: Pace,
    stop_timeout: Duration,
    /// How long the process has been ready before its current phase; `None`: not yet.
    ready_for: Option<Duration>,
}

impl Slot {
    /// A slot without a process. `starts`: how often it was started before. `stop_timeout` holds until somebody wants the slot.
    #[must_use]
    pub fn down(pace: Pace, stop_timeout: Duration, starts: u64) -> Slot {
        let phase = Phase::Down { next_start: Tick::ZERO };
        Slot { phase, identity: String::new(), failures: 0, starts, pace, stop_timeout, ready_for: None }
    }

    /// Takes over back-off and stop timeout, which change without a restart.
    pub fn heed(&mut self, want: &Want) {
        self.pace = want.pace;
        self.stop_timeout = want.stop_timeout;
    }

    /// The start came to a running process (a new one, or one that was found alive and runs `identity`).
    pub fn launched(&mut self, identity: String, now: Tick) {
        self.identity = identity;
        self.ready_for = None;
        self.phase = Phase::Starting { since: now };
    }

    /// The process answers.
    pub fn ready(&mut self, now: Tick) {
        if let Phase::Starting { .. } = self.phase {
            self.phase = Phase::Ready { since: now };
            self.ready_for = self.ready_for.or(Some(Duration::ZERO));
        }
    }

    /// The process lives and answers no more.
    pub fn unready(&mut self, now: Tick) {
        if let Phase::Ready { since } = self.phase {
            self.ready_for = Some(self.ready_for.unwrap_or_default() + now.saturating_sub(since));
            self.phase = Phase::Starting { since: now };
        }
    }

    /// The process ended, or the start came to nothing.
    pub fn ended(&mut self, now: Tick) {
        self.unready(now);
        let delay = match self.phase {
            Phase::Stopping { why: Why::Unwanted, .. } | Phase::Down { .. } => {
                self.failures = 0;
                Duration::ZERO
            }
            _ => self.failure_delay(),
        };
        self.ready_for = None;
        self.phase = Phase::Down { next_start: now + delay };
    }

    fn failure_delay(&mut self) -> Duration {
        let ready_for = self.ready_for.unwrap_or_default();
        if self.ready_for.is_some() && ready_for >= self.pace.calm_after {
            self.failures = 0;
        }
        if self.ready_for.is_some() && ready_for >= self.pace.quick_after {
            return Duration::ZERO;
        }
        self.failures = self.failures.saturating_add(1);
        self.pace.delay(self.failures, self.ready_for.is_some())
    }

    /// Whether it has a process, or may have one soon.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Down { .. })
    }
}

/// Something to carry out for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start it.
    Start,
    /// Ask it to end.
    Stop(Why),
    /// End it by force.
    Kill,
    /// Remove its folder and forget it.
    Forget,
}

/// Decides what is to be done now, at most one action per slot. Same inputs, same actions; it changes nothing.
#[must_use]
pub fn plan(slots: &BTreeMap<String, Slot>, desired: &Desired, now: Tick) -> Vec<(String, Action)> {
    let unseen = desired
        .slots
        .iter()
        .filter(|(name, wish)| matches!(wish, Wish::Run(_)) && !slots.contains_key(*name))
        .map(|(name, _)| (name.clone(), Action::Start));
    let seen =
        slots.iter().filter_map(|(name, slot)| Some((name.clone(), next_action(slot, desired.wish(name), now)?)));
    seen.chain(unseen).collect()
}

fn next_action(slot: &Slot, wish: &Wish, now: Tick) -> Option<Action> {
    match (slot.phase, wish) {
        (Phase::Launching, _) => None,
        (Phase::Down { .. }, Wish::Keep | Wish::End) => None,
        (Phase::Down { .. }, Wish::Forget) => Some(Action::Forget),
        // What is to run is not what failed: it owes no wait.
        (Phase::Down { next_start }, Wish::Run(want)) => {
            (now >= next_start || want.identity != slot.identity).then_some(Action::Start)
        }
        (Phase::Starting { .. } | Phase::Ready { .. }, Wish::End | Wish::Forget) => Some(Action::Stop(Why::Unwanted)),
        (Phase::Starting { .. } | Phase::Ready { .. }, Wish::Keep) => None,
        (Phase::Starting { since }, Wish::Run(want)) => {
            if want.identity != slot.identity {
                return Some(Action::Stop(Why::Unwanted));
            }
            let deadline = since.saturating_add(want.ready_timeout?);
            (now >= deadline).then_some(Action::Stop(Why::NotReady))
        }
        (Phase::Ready { .. }, Wish::Run(want)) => {
            (want.identity != slot.identity).then_some(Action::Stop(Why::Unwanted))
        }
        (Phase::Stopping { kill_at, .. }, _) => (now >= kill_at?).then_some(Action::Kill),
    }
}

/// Records that an action is being carried out.
pub fn apply(slots: &mut BTreeMap<String, Slot>, desired: &Desired, name: &str, action: Action, now: Tick) {
    let want = match desired.wish(name) {
        Wish::Run(want) => Some(want),
        Wish::Keep | Wish::End | Wish::Forget => None,
    };
    if let (Action::Start, Some(want)) = (action, want) {
        slots.entry(name.to_owned()).or_insert_with(|| Slot::down(want.pace, want.stop_timeout, 0));
    }
    let Some(slot) = slots.get_mut(name) else { return };
    if let Some(want) = want {
        slot.heed(want);
    }
    match action {
        Action::Start => {
            if let Some(want) = want.filter(|want| want.identity != slot.identity) {
                slot.failures = 0;
                slot.identity = want.identity.clone();
            }
            slot.starts += 1;
            slot.ready_for = None;
            slot.phase = Phase::Launching;
        }
        Action::Stop(why) => {
            slot.unready(now);
            slot.phase = Phase::Stopping { why, kill_at: Some(now.saturating_add(slot.stop_timeout)) };
        }
        Action::Kill => {
            if let Phase::Stopping { kill_at, .. } = &mut slot.phase {
                *kill_at = None;
            }
        }
        Action::Forget => {
            slots.remove(name);
        }
    }
}

/// When [`plan`] has something new to say although nothing happens; `None`: never.
#[must_use]
pub fn wake_at(slots: &BTreeMap<String, Slot>, desired: &Desired) -> Option<Tick> {
    let due = |(name, slot): (&String, &Slot)| match (slot.phase, desired.wish(name)) {
        (Phase::Down { next_start }, Wish::Run(_)) => Some(next_start),
        (Phase::Starting { since }, Wish::Run(want)) => Some(since.saturating_add(want.ready_timeout?)),
        (Phase::Stopping { kill_at, .. }, _) => kill_at,
        _ => None,
    };
    slots.iter().filter_map(due).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn want(identity: &str) -> Want {
        Want {
            identity: identity.to_owned(),
            pace: Pace::REPLICA,
            ready_timeout: Some(1_000 * MS),
            stop_timeout: 500 * MS,
        }
    }

    fn desired(wishes: &[(&str, Wish)], others: Wish) -> Desired {
        Desired { slots: wishes.iter().map(|(slot, wish)| ((*slot).to_owned(), wish.clone())).collect(), others }
    }

    fn in_phase(phase: Phase) -> Slot {
        let mut slot = Slot::down(Pace::REPLICA, 500 * MS, 1);
        slot.identity = "v1".to_owned();
        slot.phase = phase;
        slot
    }

    #[test]
    fn each_phase_and_wish_has_its_action() {
        let down = |ms| Phase::Down { next_start: ms * MS };
        let starting = |ms| Phase::Starting { since: ms * MS };
        let ready = Phase::Ready { since: Tick::ZERO };
        let stopping = |ms: Option<u32>| Phase::Stopping { why: Why::Unwanted, kill_at: ms.map(|ms| ms * MS) };
        let run = |identity| Wish::Run(want(identity));
        let stop = |why| Some(Action::Stop(why));
        #[rustfmt::skip]
        let rows = [
            ("down and due",                     down(10_000),     run("v1"),    Some(Action::Start)),
            ("down and not due",                 down(10_001),     run("v1"),    None),
            ("what did not fail owes no wait",   down(90_000),     run("v2"),    Some(Action::Start)),
            ("down and left alone",              down(0),          Wish::Keep,   None),
            ("down and ended",                   down(0),          Wish::End,    None),
            ("down and forgotten",               down(0),          Wish::Forget, Some(Action::Forget)),
            ("a start under way is waited for",  Phase::Launching, Wish::Forget, None),
            ("no second start",                  Phase::Launching, run("v2"),    None),
            ("starting in time",                 starting(9_001),  run("v1"),    None),
            ("starting for too long",            starting(9_000),  run("v1"),    stop(Why::NotReady)),
            ("starting, left alone",             starting(0),      Wish::Keep,   None),
            ("starting what is not wanted",      starting(9_999),  run("v2"),    stop(Why::Unwanted)),
            ("ready",                            ready,            run("v1"),    None),
            ("ready, left alone",                ready,            Wish::Keep,   None),
            ("ready with what is not wanted",    ready,            run("v2"),    stop(Why::Unwanted)),
            ("ready and unwanted",               ready,            Wish::Forget, stop(Why::Unwanted)),
            ("ready at the end",                 ready,            Wish::End,    stop(Why::Unwanted)),
            ("stopping in time",                 stopping(Some(10_001)), Wish::End, None),
            ("stopping for too long",            stopping(Some(10_000)), Wish::End, Some(Action::Kill)),
            ("killed once",                      stopping(None),   run("v1"),    None),
        ];
        for (why, phase, wish, action) in rows {
            let slots = [("a".to_owned(), in_phase(phase))].into();
            let got = plan(&slots, &desired(&[("a", wish)], Wish::Keep), 10_000 * MS);
            assert_eq!(got.first().map(|(_, action)| *action), action, "{why}");
        }
    }

    #[test]
    fn fixed_slots_have_all_the_time_they_need_to_get_ready() {
        let wish = Wish::Run(Want { ready_timeout: None, ..want("v1") });
        let slots = [("a".to_owned(), in_phase(Phase::Starting { since: Tick::ZERO }))].into();
        let desired = desired(&[("a", wish)], Wish::Keep);
        assert!(plan(&slots, &desired, Duration::from_secs(1 << 40)).is_empty());
        assert_eq!(wake_at(&slots, &desired), None);
    }

    /// Runs one slot through lives that end by themselves, each after being ready for some time; returns the waits.
    fn waits(pace: Pace, lives: &[Option<u64>]) -> Vec<u64> {
        let mut slot = in_phase(Phase::Launching);
        slot.pace = pace;
        let mut now = Tick::ZERO;
        let lived = lives.iter().map(|ready_for_ms| {
            slot.launched("v1".to_owned(), now);
            if let Some(ms) = ready_for_ms {
                slot.ready(now);
                now += Duration::from_millis(*ms);
            }
            slot.ended(now);
            let Phase::Down { next_start } = slot.phase else { panic!("{slot:?}") };
            (next_start - now).as_millis() as u64
        });
        lived.collect()
    }

    #[test]
    fn waits_grow_with_failures_and_a_process_that_served_is_spared() {
        let (never, briefly, well, long) = (None, Some(100), Some(10_000), Some(60_000));
        assert_eq!(
            waits(Pace::REPLICA, &[never; 10]),
            [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]
        );
        assert_eq!(waits(Pace::REPLICA, &[briefly; 6]), [200, 400, 800, 1_000, 1_000, 1_000]);
        assert_eq!(waits(Pace::REPLICA, &[well; 3]), [0, 0, 0]);
        assert_eq!(waits(Pace::REPLICA, &[never, never, well, never, long, never]), [200, 400, 0, 800, 0, 200]);
        assert_eq!(waits(Pace::FIXED, &[never; 7]), [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(waits(Pace::FIXED, &[briefly; 4]), [50, 100, 200, 200]);
        assert_eq!(waits(Pace::FIXED, &[Some(1_000); 2]), [0, 0]);
    }

    #[test]
    fn readiness_that_comes_and_goes_counts_as_the_sum_of_its_times() {
        let mut slot = in_phase(Phase::Launching);
        slot.launched("v1".to_owned(), Tick::ZERO);
        for second in [0, 7] {
            slot.ready(second * 1_000 * MS);
            slot.unready((second + 5) * 1_000 * MS);
        }
        slot.ended(12_500 * MS);
        assert_eq!(slot.phase, Phase::Down { next_start: 12_500 * MS });
    }

    #[test]
    fn another_spec_starts_with_a_clean_record() {
        let mut slots: BTreeMap<String, Slot> = [("a".to_owned(), in_phase(Phase::Launching))].into();
        let (old, new) = (
            desired(&[("a", Wish::Run(want("v1")))], Wish::Keep),
            desired(&[("a", Wish::Run(want("v2")))], Wish::Keep),
        );
        for _ in 0..5 {
            let slot = slots.get_mut("a").unwrap();
            slot.phase = Phase::Launching;
            slot.ended(Tick::ZERO);
        }
        assert!(plan(&slots, &old, Tick::ZERO).is_empty());
        assert_eq!(plan(&slots, &new, Tick::ZERO), [("a".to_owned(), Action::Start)]);
        apply(&mut slots, &new, "a", Action::Start, Tick::ZERO);
        assert_eq!(slots["a"].failures, 0);
        // And a start of it that fails owes its wait.
        slots.get_mut("a").unwrap().ended(Tick::ZERO);
        assert!(plan(&slots, &new, 199 * MS).is_empty());
        assert_eq!(wake_at(&slots, &new), Some(200 * MS));
    }

    /// A world of processes that start, answer, crash, hang and end as they like. Holds what the planner must never see broken.
    #[derive(Default)]
    struct World {
        slots: BTreeMap<String, Slot>,
        /// Identity of each slot's one process, and whether it ignores the stop signal.
        processes: BTreeMap<String, (String, bool)>,
        now: Tick,
    }

    impl World {
        fn act(&mut self, desired: &Desired, stubborn: bool) {
            for (name, action) in plan(&self.slots, desired, self.now) {
                apply(&mut self.slots, desired, &name, action, self.now);
                let slot = self.slots.get_mut(&name);
                match action {
                    Action::Start => {
                        let slot = slot.unwrap();
                        let running = self.processes.insert(name, (slot.identity.clone(), stubborn));
                        assert_eq!(running, None, "two processes for one slot");
                        slot.launched(slot.identity.clone(), self.now);
                    }
                    Action::Stop(_) if self.processes[&name].1 => {}
                    Action::Stop(_) | Action::Kill => {
                        self.processes.remove(&name).unwrap();
                        slot.unwrap().ended(self.now);
                    }
                    Action::Forget => assert!(!self.processes.contains_key(&name), "a live slot is forgotten"),
                }
            }
        }
    }

    fn event() -> impl Strategy<Value = (u8, u8, u64, bool)> {
        (0u8..6, 0u8..3, 0u64..20_000, any::<bool>())
    }

    proptest! {
        #[test]
        fn no_slot_has_two_processes_and_the_wish_comes_true(events in prop::collection::vec(event(), 1..80)) {
            let names = ["a", "b", "c"];
            let mut world = World::default();
            let mut wishes = desired(&[], Wish::Keep);
            for (kind, which, ms, stubborn) in events {
                let name = names[usize::from(which)];
                let slot = world.slots.get_mut(name);
                match (kind, slot) {
                    (0, _) => { wishes.slots.insert(name.to_owned(), Wish::Run(want(if stubborn { "v1" } else { "v2" }))); }
                    (1, _) => { wishes.slots.remove(name); wishes.others = if stubborn { Wish::Forget } else { Wish::Keep }; }
                    (2, Some(slot)) => slot.ready(world.now),
                    (3, Some(slot)) => slot.unready(world.now),
                    (4, Some(slot)) if world.processes.remove(name).is_some() => slot.ended(world.now),
                    _ => world.now += Duration::from_millis(ms),
                }
                world.act(&wishes, stubborn);
            }
            // From here on processes behave. What is wanted runs, and nothing else, after a bounded number of wakes.
            wishes.others = Wish::Forget;
            for _ in 0..40 {
                while !plan(&world.slots, &wishes, world.now).is_empty() {
                    world.act(&wishes, false);
                }
                for (name, slot) in &mut world.slots {
                    if world.processes.contains_key(name) {
                        slot.ready(world.now);
                    }
                }
                let Some(at) = wake_at(&world.slots, &wishes) else { break };
                // With nothing to do, a wake that is due already would be a busy loop.
                prop_assert!(at > world.now);
                world.now = at;
            }
            let running: BTreeMap<&str, &str> = world.processes.iter().map(|(name, (identity, _))| (name.as_str(), identity.as_str())).collect();
            let wanted: BTreeMap<&str, &str> = wishes.slots.iter().filter_map(|(name, wish)| match wish {
                Wish::Run(want) => Some((name.as_str(), want.identity.as_str())),
                _ => None,
            }).collect();
            prop_assert_eq!(running, wanted);
            prop_assert!(plan(&world.slots, &wishes, world.now).is_empty());
        }

        #[test]
        fn the_wait_never_shrinks_from_one_failure_to_the_next(failures in 0u32..u32::MAX, ready in any::<bool>()) {
            for pace in [Pace::REPLICA, Pace::FIXED] {
                prop_assert!(pace.delay(failures, ready) <= pace.delay(failures + 1, ready));
                prop_assert!(pace.delay(failures, ready) <= pace.max);
                prop_assert!(pace.delay(failures, true) <= pace.delay(failures, false));
            }
        }

        #[test]
        fn planning_twice_is_planning_once(phase in 0u8..6, ms in 0u64..5_000, at in 0u64..5_000) {
            let since = Duration::from_millis(ms);
            let phase = match phase {
                0 => Phase::Down { next_start: since },
                1 => Phase::Launching,
                2 => Phase::Starting { since },
                3 => Phase::Ready { since },
                4 => Phase::Stopping { why: Why::NotReady, kill_at: Some(since) },
                _ => Phase::Stopping { why: Why::Unwanted, kill_at: None },
            };
            let now = Duration::from_millis(at);
            for wish in [Wish::Run(want("v1")), Wish::Run(want("v2")), Wish::End, Wish::Forget, Wish::Keep] {
                let mut slots: BTreeMap<String, Slot> = [("a".to_owned(), in_phase(phase))].into();
                let desired = desired(&[("a", wish)], Wish::Keep);
                for (slot, action) in plan(&slots, &desired, now) {
                    apply(&mut slots, &desired, &slot, action, now);
                }
                prop_assert!(plan(&slots, &desired, now).is_empty());
            }
        }
    }
}
