//! The supervisor: carries out what [`crate::plan`] decides, and tells the planner what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serin_api::layout::Layout;
use serin_api::wire::processes::{NodeStatus, Process, ProcessSet, SlotState, SlotStatus};
use serin_api::wire::routes::Address;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::error::{NodeError, io};
use crate::launch::{self, FixedSpec, Launch, Launched, Runs};
use crate::lock::{self, Found, SlotGuard};
use crate::plan::{self, Action, Desired, Pace, Phase, Slot, Tick, Why, Wish};
use crate::ports::{self, Ports};
use crate::process::{self, Live};
use crate::ready::{self, Check, Seen, Target};
use crate::record::{AbortOnDrop, Record};
use crate::up::Up;
use crate::{CONTROL_SLOT, GATEWAY_SLOT, disk, stream};

/// How often the sizes of logs are looked at.
const LOGS_EVERY: Duration = Duration::from_secs(10);
/// How long no status is posted after a start while adopted processes were not probed yet.
const QUIET_FOR: Duration = Duration::from_millis(1_500);
/// How long a killed process has to be gone at the end.
const GONE_WITHIN: Duration = Duration::from_secs(15);

/// How to run everything on one machine.
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// Where everything is kept.
    pub layout: Layout,
    /// The `serin` executable.
    pub executable: PathBuf,
    /// The node's id, 1 to 80 of `a-z`, `0-9`, `.` and `-`.
    pub node: String,
    /// The gateway's data port; 0: a free one, picked once and kept.
    pub gateway_port: u16,
    /// The gateway's admin port; 0 likewise.
    pub admin_port: u16,
    /// The API's port; 0 likewise.
    pub api_port: u16,
    /// Further arguments of `serin control`.
    pub control_args: Vec<String>,
    /// Further arguments of `serin gateway`.
    pub gateway_args: Vec<String>,
}

impl SupervisorConfig {
    /// The defaults: this executable, node `local`, ports 7300, 7301 and 7343.
    ///
    /// # Errors
    /// [`NodeError::Io`] when the system does not say which executable this is.
    pub fn new(layout: Layout) -> Result<SupervisorConfig, NodeError> {
        Ok(SupervisorConfig {
            layout,
            executable: std::env::current_exe().map_err(io("resolve", "/proc/self/exe"))?,
            node: "local".to_owned(),
            gateway_port: 7300,
            admin_port: 7301,
            api_port: 7343,
            control_args: Vec::new(),
            gateway_args: Vec::new(),
        })
    }
}

/// The supervisor of one home.
pub struct Supervisor {
    layout: Layout,
    executable: PathBuf,
    node: String,
    fixed: BTreeMap<&'static str, FixedSpec>,
    addresses: Up,
    admin_port: u16,
    api_port: u16,
    ports: Arc<Ports>,
    started: Instant,
    set: Option<ProcessSet>,
    slots: BTreeMap<String, Slot>,
    records: BTreeMap<String, Record>,
    /// Adopted slots without a first probe.
    unprobed: BTreeSet<String>,
    stage: Stage,
    /// What follows from the stage, the fixed slots and the set.
    desired: Desired,
    runs: u64,
    tell: mpsc::Sender<(String, u64, News)>,
    news: mpsc::Receiver<(String, u64, News)>,
    sets: (mpsc::Sender<ProcessSet>, mpsc::Receiver<ProcessSet>),
    status: watch::Sender<Option<NodeStatus>>,
    _home: SlotGuard,
}

/// What is ending, in this order: who takes requests before who answers them, and who decides last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Run,
    EndGateway,
    EndReplicas,
    EndControl,
}

/// What happened to a slot.
enum News {
    Launched(Result<Box<Launched>, NodeError>),
    Probed(Seen),
    Ended(String),
}

impl Supervisor {
    /// Takes the home: creates its folders, locks it, and settles the ports. Nothing runs yet.
    ///
    /// # Errors
    /// See [`NodeError`]; a second supervisor on the same home gets [`NodeError::AlreadyUp`].
    pub fn open(config: SupervisorConfig) -> Result<Supervisor, NodeError> {
        if !launch::is_name(&config.node) {
            return Err(NodeError::NodeName { node: config.node });
        }
        let mut supervisor = Supervisor::take(config.layout.clone())?;
        let wanted = [config.gateway_port, config.admin_port, config.api_port];
        let ports = supervisor.ports.settle(&supervisor.layout, wanted)?;
        let [gateway, admin, api] = ports.map(|port| ports::loopback(port).to_string());
        let home = supervisor.layout.home().to_string_lossy().into_owned();
        let args = |start: &[&str], more: Vec<String>| -> Vec<String> {
            start.iter().map(|arg| (*arg).to_owned()).chain(more).collect()
        };
        let control = args(&["control", "--home", &home, "--api-listen", &api], config.control_args);
        let gateway_args =
            args(&["gateway", "--home", &home, "--listen", &gateway, "--admin", &admin], config.gateway_args);
        let fixed = |args| FixedSpec { program: config.executable.clone(), args };
        supervisor.fixed = [(CONTROL_SLOT, fixed(control)), (GATEWAY_SLOT, fixed(gateway_args))].into();
        (supervisor.addresses.gateway, supervisor.addresses.admin, supervisor.addresses.api) = (gateway, admin, api);
        [_, supervisor.admin_port, supervisor.api_port] = ports;
        supervisor.executable = config.executable;
        supervisor.node = config.node;
        Ok(supervisor)
    }

    /// Takes the home in order to end what runs there.
    pub(crate) fn take(layout: Layout) -> Result<Supervisor, NodeError> {
        disk::prepare(&layout)?;
        let guard = match lock::hold(&lock::home_lock_path(&layout))? {
            Ok(guard) => guard,
            Err(holder) => {
                let pid = holder.map_or(0, |holder| holder.pid);
                return Err(NodeError::AlreadyUp { home: layout.home().to_owned(), pid });
            }
        };
        let (tell, news) = mpsc::channel(1024);
        let addresses = Up {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            gateway: String::new(),
            admin: String::new(),
            api: String::new(),
            home: layout.home().to_owned(),
            started_at: lock::wall_clock(),
        };
        Ok(Supervisor {
            executable: PathBuf::new(),
            node: String::new(),
            fixed: BTreeMap::new(),
            addresses,
            admin_port: 0,
            api_port: 0,
            ports: Arc::default(),
            started: Instant::now(),
            set: None,
            slots: BTreeMap::new(),
            records: BTreeMap::new(),
            unprobed: BTreeSet::new(),
            stage: Stage::Run,
            desired: Desired { slots: BTreeMap::new(), others: Wish::Keep },
            runs: 0,
            tell,
            news,
            sets: mpsc::channel(1),
            status: watch::Sender::new(None),
            layout,
            _home: guard,
        })
    }

    /// Where everything listens, or will.
    #[must_use]
    pub fn addresses(&self) -> &Up {
        &self.addresses
    }

    /// Runs everything until `shutdown` resolves; then ends the gateway, the replicas and control, in this order, and removes
    /// `up.json`. `on_ready` is called once, when control and the gateway are ready and `up.json` is written.
    ///
    /// Processes that an earlier supervisor left are adopted. While control is away the last process set is followed, from disk
    /// if need be. Dropping the future leaves everything running.
    ///
    /// # Errors
    /// [`NodeError::Stuck`] when something did not end; [`NodeError::Io`] when `up.json` cannot be written or removed, or the
    /// slots' folder cannot be read.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()>,
        on_ready: impl FnOnce(&Up),
    ) -> Result<(), NodeError> {
        // A slot that is not clear says so again when it is started or forgotten.
        let _ = self.adopt().await?;
        self.set = self.read_set();
        self.desire();
        let socket = self.layout.control_socket();
        let set = self.sets.0.clone();
        let followed = stream::follow(socket.clone(), self.node.clone(), async move |next| {
            // The other end is this supervisor, which lives.
            let _ = set.send(next).await;
        });
        let followed = AbortOnDrop(tokio::spawn(followed).abort_handle());
        let reported = AbortOnDrop(tokio::spawn(stream::report(socket, self.status.subscribe())).abort_handle());
        let mut on_ready = Some(on_ready);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut logs = interval(LOGS_EVERY);
        logs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let written = loop {
            self.act();
            if [CONTROL_SLOT, GATEWAY_SLOT].iter().all(|slot| self.is_ready(slot))
                && let Some(on_ready) = on_ready.take()
            {
                if let Err(error) = self.addresses.write(&self.layout) {
                    break Err(error);
                }
                on_ready(&self.addresses);
            }
            self.publish();
            let wake = self.wake();
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                Some((slot, run, news)) = self.news.recv() => self.heed(&slot, run, news),
                Some(set) = self.sets.1.recv() => self.take_set(set),
                () = sleep_until(wake) => {}
                _ = logs.tick() => self.trim_logs(),
            }
        };
        drop((followed, reported));
        self.wind_down().await?;
        written
    }

    /// Ends everything in order. Returns what was alive.
    pub(crate) async fn wind_down(&mut self) -> Result<Vec<(String, i32)>, NodeError> {
        let pid = |record: &Record| record.live.as_ref().map(|live| live.pid.as_raw_nonzero().get());
        let ended = self.records.iter().filter_map(|(slot, record)| Some((slot.clone(), pid(record)?))).collect();
        for stage in [Stage::EndGateway, Stage::EndReplicas, Stage::EndControl] {
            self.stage = stage;
            self.desire();
            let mut give_up: Option<Instant> = None;
            loop {
                self.act();
                let is_left = |(name, slot): &(&String, &Slot)| *self.desired.wish(name) == Wish::End && slot.is_live();
                let left: Vec<&String> = self.slots.iter().filter(is_left).map(|(name, _)| name).collect();
                if left.is_empty() {
                    break;
                }
                let is_killed =
                    |name: &&String| matches!(self.slots[*name].phase, Phase::Stopping { kill_at: None, .. });
                if left.iter().all(is_killed) {
                    let at = *give_up.get_or_insert_with(|| Instant::now() + GONE_WITHIN);
                    if Instant::now() >= at {
                        return Err(NodeError::Stuck { slots: left.into_iter().cloned().collect() });
                    }
                }
                let wake = self.wake().min(give_up.unwrap_or_else(|| Instant::now() + GONE_WITHIN));
                tokio::select! {
                    Some((slot, run, news)) = self.news.recv() => self.heed(&slot, run, news),
                    () = sleep_until(wake) => {}
                }
            }
        }
        disk::remove_if_there(&self.layout.up_file())?;
        Ok(ended)
    }

    /// Finds the slots on disk, and those of their processes that live. Kills what the others left behind, and returns the slots
    /// where that did not help.
    pub(crate) async fn adopt(&mut self) -> Result<Vec<String>, NodeError> {
        let folder = self.layout.node().join("slots");
        let mut looks = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io("read", &folder))? {
            let name = entry.map_err(io("read", &folder))?.file_name();
            let Some(name) = name.to_str().filter(|name| launch::is_name(name)).map(str::to_owned) else { continue };
            let (layout, slot) = (self.layout.clone(), name.clone());
            looks.push((name, spawn_blocking(move || look(&layout, &slot))));
        }
        let mut unclear = Vec::new();
        for (name, look) in looks {
            let Ok(looked) = look.await else { continue };
            let Looked { found, live, runs, clear } = looked.unwrap_or_else(|error| {
                // Its start will say the same.
                tracing::warn!(slot = name, %error, "cannot tell whether the slot is alive");
                Looked { found: Found::Free(None), live: None, runs: None, clear: true }
            });
            if !clear {
                tracing::warn!(slot = name, "what the slot's dead process left behind does not end");
                unclear.push(name.clone());
            }
            let holder = match &found {
                Found::Alive(holder) | Found::Free(Some(holder)) => Some(holder),
                Found::Free(None) | Found::Strays => None,
            };
            let starts = holder.map_or(0, |holder| holder.starts);
            let want = runs.as_ref().map(|runs| runs.want(&name));
            let pace = want.as_ref().map_or(Pace::REPLICA, |want| want.pace);
            let stop_timeout = want.as_ref().map_or(Duration::from_secs(10), |want| want.stop_timeout);
            self.slots.insert(name.clone(), Slot::down(pace, stop_timeout, starts));
            let (address, port) = match &runs {
                Some(runs) => self.address(&name, runs),
                None => (Address::Tcp(ports::loopback(0).to_string()), None),
            };
            let mut record = Record::new(address, port);
            self.runs += 1;
            record.run = self.runs;
            self.records.insert(name.clone(), record);
            if let Some(live) = live {
                tracing::info!(slot = name, pid = live.pid.as_raw_nonzero(), "adopted");
                self.unprobed.insert(name.clone());
                self.run_from(&name, Launched { live, child: None, runs, port, log_from: 0 });
            }
        }
        Ok(unclear)
    }

    /// Settles what is wished for each slot from now on.
    fn desire(&mut self) {
        let only = |slot: &str, wish: Wish, others: Wish| Desired { slots: [(slot.to_owned(), wish)].into(), others };
        self.desired = match self.stage {
            Stage::Run => {
                let names = self.set.iter().flat_map(|set| set.slots.keys().map(String::as_str));
                let names = self.fixed.keys().copied().chain(names.filter(|name| launch::is_replica_name(name)));
                let wants =
                    names.filter_map(|name| Some((name.to_owned(), Wish::Run(self.what_to_run(name)?.want(name)))));
                // Without a set nobody knows what is not wanted.
                Desired { slots: wants.collect(), others: if self.set.is_some() { Wish::Forget } else { Wish::Keep } }
            }
            Stage::EndGateway => only(GATEWAY_SLOT, Wish::End, Wish::Keep),
            Stage::EndReplicas => only(CONTROL_SLOT, Wish::Keep, Wish::End),
            Stage::EndControl => Desired { slots: BTreeMap::new(), others: Wish::End },
        };
        for (name, slot) in &mut self.slots {
            if let Wish::Run(want) = self.desired.wish(name) {
                slot.heed(want);
            }
        }
    }

    fn what_to_run(&self, slot: &str) -> Option<Runs> {
        match self.fixed.get(slot) {
            Some(spec) => Some(Runs::Fixed(spec.clone())),
            None => self.set.as_ref()?.slots.get(slot).map(|spec| Runs::Replica(Box::new(spec.clone()))),
        }
    }

    /// Plans, and carries the plan out.
    fn act(&mut self) {
        let now = self.now();
        for (slot, action) in plan::plan(&self.slots, &self.desired, now) {
            plan::apply(&mut self.slots, &self.desired, &slot, action, now);
            match action {
                Action::Start => self.start(&slot),
                Action::Stop(_) => self.signal(&slot, Signal::TERM),
                Action::Kill => self.signal(&slot, Signal::KILL),
                Action::Forget => self.forget(&slot),
            }
        }
    }

    fn start(&mut self, slot: &str) {
        let Some(runs) = self.what_to_run(slot) else { return };
        self.runs += 1;
        let run = self.runs;
        let (address, port) = self.address(slot, &runs);
        let record = self.records.entry(slot.to_owned()).or_insert_with(|| Record::new(address.clone(), port));
        (record.address, record.port, record.run) = (address, port, run);
        let job = Launch {
            layout: self.layout.clone(),
            slot: slot.to_owned(),
            runs,
            executable: self.executable.clone(),
            port,
            ports: self.ports.clone(),
        };
        let (tell, slot) = (self.tell.clone(), slot.to_owned());
        tokio::spawn(async move {
            if let Ok(result) = spawn_blocking(move || launch::launch(&job)).await {
                let _ = tell.send((slot, run, News::Launched(result.map(Box::new)))).await;
            }
        });
    }

    fn signal(&mut self, slot: &str, signal: Signal) {
        let Some(record) = self.records.get_mut(slot) else { return };
        record.probe = None;
        if let Some(live) = &record.live {
            tracing::info!(slot, pid = live.pid.as_raw_nonzero(), ?signal, "ending");
            live.signal(signal);
        }
    }

    fn forget(&mut self, slot: &str) {
        if let Some(port) = self.records.remove(slot).and_then(|record| record.port) {
            self.ports.release(port);
        }
        self.unprobed.remove(slot);
        let _ = fs::remove_file(self.layout.slot_socket(slot));
        match lock::remove_slot(&self.layout, slot) {
            Ok(true) => tracing::info!(slot, "removed"),
            Ok(false) => tracing::warn!(slot, "the slot's lock is held although its process ended; its folder stays"),
            Err(error) => tracing::warn!(slot, %error, "the slot's folder stays"),
        }
    }

    /// Takes a process over: a new one, or one that lived already.
    fn run_from(&mut self, slot: &str, launched: Launched) {
        let now = self.now();
        let Launched { live, child, runs, port, log_from } = launched;
        let check = runs.as_ref().and_then(|runs| self.check(slot, runs, port));
        let (Some(state), Some(record)) = (self.slots.get_mut(slot), self.records.get_mut(slot)) else { return };
        if child.is_some() {
            tracing::info!(slot, pid = live.pid.as_raw_nonzero(), "started");
        }
        state.launched(runs.as_ref().map(Runs::identity).unwrap_or_default(), now);
        if let (Some(port), Address::Tcp(_)) = (port, &record.address) {
            (record.port, record.address) = (Some(port), Address::Tcp(ports::loopback(port).to_string()));
        }
        (record.log_from, record.started, record.unready) = (log_from, now, None);
        let (tell, name, run) = (self.tell.clone(), slot.to_owned(), record.run);
        record.probe = check.map(|check| {
            let watched = ready::watch(check, async move |seen| {
                let _ = tell.send((name.clone(), run, News::Probed(seen))).await;
            });
            AbortOnDrop(tokio::spawn(watched).abort_handle())
        });
        if record.probe.is_none() {
            self.unprobed.remove(slot);
        }
        let (tell, name) = (self.tell.clone(), slot.to_owned());
        let lock = lock::lock_path(&self.layout, slot);
        let by_mark = runs.as_ref().is_none_or(Runs::may_leave_strays);
        record.live = Some(live.clone());
        record.runs = runs;
        tokio::spawn(async move {
            if live.ended().await.is_err() {
                // There is no descriptor left to wait on it.
                while !live.has_ended() {
                    sleep(Duration::from_millis(50)).await;
                }
            }
            let cleared = spawn_blocking(move || {
                let how = child.map_or_else(
                    || "ended (how is unknown: an earlier supervisor started it)".to_owned(),
                    process::reap,
                );
                process::clear_strays(&lock, by_mark);
                how
            });
            if let Ok(how) = cleared.await {
                let _ = tell.send((name, run, News::Ended(how))).await;
            }
        });
    }

    /// How the slot's readiness shows; `None`: not at all, as nobody will ask.
    fn check(&self, slot: &str, runs: &Runs, port: Option<u16>) -> Option<Check> {
        match runs {
            Runs::Fixed(_) if self.fixed.is_empty() => None,
            Runs::Fixed(_) if slot == GATEWAY_SLOT => {
                Some(Check::Http { addr: ports::loopback(self.admin_port), path: "/readyz".to_owned() })
            }
            Runs::Fixed(_) => Some(Check::Connect(vec![
                Target::Unix(self.layout.control_socket()),
                Target::Tcp(ports::loopback(self.api_port)),
            ])),
            Runs::Replica(spec) => match &spec.process {
                Process::ModelServer { .. } => Some(Check::Connect(vec![Target::Unix(self.layout.slot_socket(slot))])),
                Process::Command { ready_path, .. } => {
                    Some(Check::Http { addr: ports::loopback(port?), path: ready_path.clone() })
                }
            },
        }
    }

    /// Where a slot listens. A port that cannot be had is 0; the start then says why.
    fn address(&self, slot: &str, runs: &Runs) -> (Address, Option<u16>) {
        match runs {
            Runs::Replica(spec) if matches!(spec.process, Process::Command { .. }) => {
                let file = launch::port_path(&self.layout, slot);
                let port = disk::private_folder(&self.layout.slot(slot)).and_then(|()| self.ports.keep(&file));
                let port = port.unwrap_or_else(|error| {
                    tracing::warn!(slot, %error, "no port for the slot");
                    0
                });
                (Address::Tcp(ports::loopback(port).to_string()), Some(port))
            }
            _ => (Address::Unix(self.layout.slot_socket(slot).to_string_lossy().into_owned()), None),
        }
    }

    /// Records what happened to a slot.
    fn heed(&mut self, name: &str, run: u64, news: News) {
        let now = self.now();
        let (Some(slot), Some(record)) = (self.slots.get_mut(name), self.records.get_mut(name)) else { return };
        if record.run != run {
            return;
        }
        match news {
            News::Launched(Ok(launched)) => self.run_from(name, *launched),
            News::Launched(Err(error)) => {
                tracing::warn!(slot = name, %error, "cannot be started");
                record.reason = Some(format!("cannot be started: {error}"));
                slot.ended(now);
            }
            News::Probed(seen) => {
                self.unprobed.remove(name);
                match seen {
                    Seen::Ready => {
                        tracing::info!(slot = name, after = ?now.saturating_sub(record.started), "ready");
                        slot.ready(now);
                        (record.reason, record.unready) = (None, None);
                    }
                    Seen::Unready(why) => {
                        if let Phase::Ready { .. } = slot.phase {
                            tracing::warn!(slot = name, reason = why, "not ready any more");
                        }
                        slot.unready(now);
                        record.unready = Some(why);
                    }
                }
            }
            News::Ended(how) => {
                self.unprobed.remove(name);
                (record.probe, record.live) = (None, None);
                record.reason = match slot.phase {
                    Phase::Stopping { why: Why::Unwanted, .. } => None,
                    phase => Some(record.why_ended(&launch::log_path(&self.layout, name), phase, &how, now)),
                };
                slot.ended(now);
                let next_start = match slot.phase {
                    Phase::Down { next_start } => next_start.saturating_sub(now),
                    _ => Duration::ZERO,
                };
                match &record.reason {
                    Some(reason) => tracing::warn!(slot = name, reason, wait = ?next_start, "ended"),
                    None => tracing::info!(slot = name, how, "ended"),
                }
            }
        }
    }

    fn take_set(&mut self, mut set: ProcessSet) {
        for slot in std::mem::take(&mut set.keep) {
            if let Some(known) = self.set.as_ref().and_then(|known| known.slots.get(&slot)) {
                set.slots.entry(slot).or_insert_with(|| known.clone());
            }
        }
        if self.set.as_ref() == Some(&set) {
            return;
        }
        tracing::info!(generation = set.generation, slots = set.slots.len(), "new process set");
        let path = self.layout.node().join("processes.json");
        let text = serde_json::to_vec(&set).expect("a process set has string keys only");
        if let Err(error) = disk::write_private(&path, &text) {
            tracing::error!(%error, "the process set is followed, and not kept for a restart without control");
        }
        self.set = Some(set);
        self.desire();
    }

    fn read_set(&self) -> Option<ProcessSet> {
        let path = self.layout.node().join("processes.json");
        let text = disk::read_if_there(&path).unwrap_or_else(|error| {
            tracing::error!(%error, "waiting for control's process set");
            None
        })?;
        let set = serde_json::from_slice(&text);
        set.map_err(|error| tracing::error!(path = %path.display(), %error, "not a process set; waiting for control's"))
            .ok()
    }

    /// Posts the status if it changed.
    fn publish(&mut self) {
        let quiet = !self.unprobed.is_empty() && self.now() < QUIET_FOR;
        if quiet {
            return;
        }
        let next = Some(self.node_status());
        self.status.send_if_modified(|status| {
            let is_new = *status != next;
            *status = next;
            is_new
        });
    }

    fn node_status(&self) -> NodeStatus {
        let known = self.slots.iter().filter(|(name, _)| !launch::is_fixed(name));
        let known = known.filter_map(|(name, slot)| Some((name.clone(), self.records.get(name)?.status(slot))));
        let names = self.set.iter().flat_map(|set| set.slots.keys());
        let refused = names.filter(|name| !launch::is_replica_name(name)).map(|name| {
            let reason = crate::ReplicaError::SlotName { slot: name.clone() }.to_string();
            let address = Address::Tcp(ports::loopback(0).to_string());
            let status = SlotStatus {
                state: SlotState::BackOff,
                address,
                pid: None,
                started_at: None,
                restarts: 0,
                reason: Some(reason),
            };
            (name.clone(), status)
        });
        NodeStatus {
            node: self.node.clone(),
            generation: self.set.as_ref().map_or(0, |set| set.generation),
            slots: known.chain(refused).collect(),
        }
    }

    fn is_ready(&self, slot: &str) -> bool {
        self.slots.get(slot).is_some_and(|slot| matches!(slot.phase, Phase::Ready { .. }))
    }

    fn trim_logs(&self) {
        let logs: Vec<PathBuf> = self.slots.keys().map(|slot| launch::log_path(&self.layout, slot)).collect();
        spawn_blocking(move || {
            for log in logs {
                if let Err(error) = disk::trim_log(&log) {
                    tracing::warn!(%error, "a large log stays as it is");
                }
            }
        });
    }

    fn now(&self) -> Tick {
        self.started.elapsed()
    }

    fn wake(&self) -> Instant {
        /// Far enough to cost nothing, near enough for any clock.
        const IDLE: Duration = Duration::from_secs(3600);
        let planned = plan::wake_at(&self.slots, &self.desired).unwrap_or(self.now() + IDLE);
        let at = if self.unprobed.is_empty() || self.now() >= QUIET_FOR { planned } else { planned.min(QUIET_FOR) };
        self.started + at.min(self.now() + IDLE)
    }
}

/// What was found of one slot on disk.
struct Looked {
    found: Found,
    /// Its process, if it lives.
    live: Option<Live>,
    runs: Option<Runs>,
    /// Whether nothing is left of a process that died.
    clear: bool,
}

/// Looks at one slot on disk. The children of a command that died while no supervisor ran go at once: nobody else would end them
/// if the slot is not wanted any more, or if everything is to end. Blocks.
fn look(layout: &Layout, slot: &str) -> Result<Looked, NodeError> {
    let lock = lock::lock_path(layout, slot);
    let holder = || -> Result<_, NodeError> {
        let found = lock::look(&lock)?;
        let live = if let Found::Alive(holder) = &found { Live::adopt(holder) } else { None };
        Ok((found, live))
    };
    let (mut found, mut live) = holder()?;
    let runs = Runs::read(layout, slot);
    let mut clear = true;
    if live.is_none() && (found == Found::Strays || runs.as_ref().is_none_or(Runs::may_leave_strays)) {
        clear = process::clear_strays(&lock, true);
        // A process that was just being started may have taken the slot in between.
        (found, live) = holder()?;
    }
    Ok(Looked { found, live, runs, clear })
}
