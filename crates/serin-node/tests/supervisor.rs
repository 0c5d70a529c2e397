//! The supervisor with real processes, which are killed at random moments. See `support/actor.rs` for the part they play.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serin_api::layout::Layout;
use serin_api::wire::processes::{NodeStatus, Process, ProcessSet, SlotSpec, SlotState, SlotStatus};
use serin_api::wire::routes::Address;
use serin_node::Up;

#[test]
fn everything_comes_up_and_goes_down_again() {
    let mut home = Home::new();
    home.set([model("a", &[]), model("b", &[])]);
    home.up();
    let up = home.wait_up();
    assert_eq!(up.home, home.layout.home());
    let ports: BTreeSet<_> = [&up.gateway, &up.admin, &up.api].into();
    assert_eq!(ports.len(), 3);
    let status = home.wait(|status| ready(status, "a") && ready(status, "b"));
    assert_eq!((status.node.as_str(), status.generation, status.slots.len()), ("local", home.generation, 2));
    let a = &status.slots["a"];
    assert_eq!((a.restarts, &a.reason, a.pid), (0, &None, home.pid_of("run-replica a")));
    assert_eq!(a.address, Address::Unix(home.layout.slot_socket("a").to_string_lossy().into_owned()));
    assert_eq!(serin_node::supervisor_pid(&home.layout).unwrap(), Some(up.pid));

    let report = home.down();
    for part in
        [format!("Some({})", up.pid), format!("(\"a\", {})", a.pid.unwrap()), "control".into(), "gateway".into()]
    {
        assert!(report.contains(&part), "{report}");
    }
    assert_eq!(home.processes(), []);
    assert_eq!(Up::read(&home.layout).unwrap(), None);
    assert_eq!(home.down(), "None []\n", "twice is once");

    // The same ports, and the replicas, without waiting for control.
    home.fail_control(true);
    home.up();
    home.until("the replicas run without control", |home| home.pid_of("run-replica a").is_some());
    home.fail_control(false);
    let again = home.wait_up();
    assert_eq!((again.gateway, again.admin, again.api), (up.gateway, up.admin, up.api));
}

#[test]
fn what_is_killed_at_random_moments_is_back_in_time_and_never_twice() {
    let mut home = Home::new();
    home.set([model("a", &[]), model("b", &[]), home.command("c", &[])]);
    home.up();
    home.wait(|status| ["a", "b", "c"].iter().all(|slot| ready(status, slot)));
    let mut next = random();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let mut looks = 0;
            while !end.load(Ordering::SeqCst) {
                home.assert_no_twins();
                sleep(Duration::from_millis(2));
                looks += 1;
            }
            looks
        });
        let killed = thread::scope(|inner| {
            inner
                .spawn(|| {
                    for _ in 0..20 {
                        sleep(Duration::from_millis(next(300)));
                        let role = ["run-replica a", "run-replica b", "serve", "gateway", "control"][next(5) as usize];
                        home.wait(|_| home.pid_of(role).is_some());
                        let pid = home.pid_of(role).unwrap();
                        kill(pid);
                        let since = Instant::now();
                        let is_back = || match role {
                            "gateway" => home.answers(&home.wait_up().admin),
                            "control" => std::os::unix::net::UnixStream::connect(home.layout.control_socket()).is_ok(),
                            "serve" => fs::read_to_string(home.layout.slot("c").join("port"))
                                .is_ok_and(|port| home.answers(&format!("127.0.0.1:{port}"))),
                            replica => std::os::unix::net::UnixStream::connect(
                                home.layout.slot_socket(replica.rsplit(' ').next().unwrap()),
                            )
                            .is_ok(),
                        };
                        while !is_back() {
                            sleep(Duration::from_millis(5));
                            assert!(since.elapsed() < Duration::from_secs(10), "{role}");
                        }
                        let limit = if role == "gateway" || role == "control" { 1 } else { 5 };
                        assert!(since.elapsed() < Duration::from_secs(limit), "{role} took {:?}", since.elapsed());
                    }
                })
                .join()
        });
        end.store(true, Ordering::SeqCst);
        assert!(watched.join().unwrap() > 10);
        killed.unwrap();
    });
    let status = home.wait(|status| ["a", "b", "c"].iter().all(|slot| ready(status, slot)));
    assert!(status.slots.values().map(|slot| slot.restarts).sum::<u64>() > 5, "{status:?}");
    assert!(status.slots.values().all(|slot| slot.reason.is_none()));
}

#[test]
fn a_restarted_supervisor_adopts_what_lives_and_replaces_what_died() {
    let mut home = Home::new();
    home.set([model("a", &[]), model("b", &[]), home.command("c", &["--fork"]), model("gone", &[])]);
    home.up();
    home.wait(|status| ["a", "b", "c", "gone"].iter().all(|slot| ready(status, slot)));
    let roles = ["control", "gateway", "run-replica a", "run-replica b", "serve", "run-replica gone"];
    let before: Vec<_> = roles.iter().map(|role| home.pid_of(role).unwrap()).collect();

    for round in 0..3 {
        home.kill_supervisor();
        sleep(Duration::from_millis(round * 100));
        let after: Vec<_> = roles.iter().map(|role| home.pid_of(role).unwrap()).collect();
        assert_eq!(after, before, "a killed supervisor takes nobody along");
        assert_eq!(serin_node::supervisor_pid(&home.layout).unwrap(), None);
        let _ = fs::remove_file(home.test("statuses"));
        home.up();
        home.wait_up();
        let status = home.wait(|_| true);
        assert_eq!(status.slots["a"].pid, Some(before[2]));
        // Not for a moment did control see anything unready.
        let statuses = fs::read_to_string(home.test("statuses")).unwrap();
        for status in statuses.lines().map(|line| serde_json::from_str::<NodeStatus>(line).unwrap()) {
            assert!(["a", "b", "c", "gone"].iter().all(|slot| ready(&status, slot)), "{status:?}");
        }
    }

    home.kill_supervisor();
    // While nobody looks one replica dies, one command dies and leaves its children, and one replica is not wanted any more.
    let strays = home.pids_of("sleep 1000");
    assert_eq!(strays.len(), 2);
    kill(before[2]);
    kill(before[4]);
    home.set([model("a", &[]), model("b", &[]), home.command("c", &["--fork"])]);
    home.up();
    let status = home
        .wait(|status| ["a", "b", "c"].iter().all(|slot| ready(status, slot)) && !status.slots.contains_key("gone"));
    assert_ne!(status.slots["a"].pid, Some(before[2]));
    assert_eq!(status.slots["b"].pid, Some(before[3]), "adopted");
    assert_eq!(status.slots["a"].restarts, 1);
    assert_eq!([home.pid_of("control"), home.pid_of("gateway")], [Some(before[0]), Some(before[1])]);
    assert_eq!(home.pid_of("run-replica gone"), None);
    assert!(!home.layout.slot("gone").exists());
    let children = home.pids_of("sleep 1000");
    assert!(children.len() == 2 && children.iter().all(|child| !strays.contains(child)), "{strays:?} {children:?}");
    home.assert_no_twins();
    // An adopted process that ends is noticed too.
    kill(before[3]);
    let status = home.wait(|status| ready(status, "b") && status.slots["b"].pid != Some(before[3]));
    assert_eq!(status.slots["b"].restarts, 1);
    home.down();
    assert_eq!(home.processes(), []);
}

#[test]
fn a_supervisor_that_is_killed_at_random_moments_leaves_no_twins() {
    let mut home = Home::new();
    home.set([model("a", &[]), model("b", &[]), home.command("c", &["--fork"])]);
    let mut next = random();
    for _ in 0..20 {
        home.up();
        sleep(Duration::from_millis(next(120)));
        home.kill_supervisor();
        home.assert_no_twins();
        for role in ["run-replica a", "gateway", "control", "serve"] {
            if let (0, Some(pid)) = (next(4), home.pid_of(role)) {
                kill(pid);
            }
        }
    }
    home.up();
    home.wait(|status| ["a", "b", "c"].iter().all(|slot| ready(status, slot)));
    home.wait_up();
    // The supervisor, control, the gateway, two replicas, and the command with its two children.
    home.until("nobody is left over", |home| home.processes().len() == 8);
    home.assert_no_twins();
    home.down();
    assert_eq!(home.processes(), []);
}

#[test]
fn a_zombie_counts_as_dead() {
    let mut home = Home::new();
    home.set([model("a", &[])]);
    home.up();
    home.wait(|status| ready(status, "a"));
    let first = home.pid_of("run-replica a").unwrap();
    // A process of the slot whose parent is this test, which does not reap it.
    home.kill_supervisor();
    kill(first);
    let mut child = None;
    home.until("the slot is free", |home| {
        child = Some(home.actor(&["run-replica", "a"]).process_group(0).stderr(Stdio::null()).spawn().unwrap());
        sleep(Duration::from_millis(200));
        child.as_mut().unwrap().try_wait().unwrap().is_none()
    });
    let mut child = child.unwrap();
    let zombie = child.id() as i32;
    home.up();
    let status = home.wait(|status| ready(status, "a"));
    assert_eq!(status.slots["a"].pid, Some(zombie), "adopted");
    kill(zombie);
    let status = home.wait(|status| ready(status, "a") && status.slots["a"].pid != Some(zombie));
    assert!(fs::read_to_string(format!("/proc/{zombie}/stat")).unwrap().contains(") Z "));
    // Once more for a supervisor that finds only the zombie.
    kill(status.slots["a"].pid.unwrap());
    home.kill_supervisor();
    home.up();
    home.wait(|status| ready(status, "a") && status.slots["a"].pid != Some(zombie));
    home.assert_no_twins();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn while_control_is_dead_replicas_are_restarted_and_none_is_stopped() {
    let mut home = Home::new();
    home.set([model("a", &[]), model("b", &[])]);
    home.up();
    let status = home.wait(|status| ready(status, "a") && ready(status, "b"));
    home.fail_control(true);
    kill(home.pid_of("control").unwrap());
    let (a, b) = (status.slots["a"].pid.unwrap(), status.slots["b"].pid.unwrap());
    for _ in 0..3 {
        let old = home.pid_of("run-replica a").unwrap();
        kill(old);
        let since = Instant::now();
        home.until("the replica is back", |home| {
            home.pid_of("run-replica a").is_some_and(|pid| pid != old)
                && std::os::unix::net::UnixStream::connect(home.layout.slot_socket("a")).is_ok()
        });
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
    // And by a supervisor that has never spoken to control.
    home.kill_supervisor();
    kill(home.pid_of("run-replica a").unwrap());
    home.up();
    home.until("the replica is back", |home| {
        std::os::unix::net::UnixStream::connect(home.layout.slot_socket("a")).is_ok()
    });
    assert_ne!(home.pid_of("run-replica a"), Some(a));
    assert_eq!(home.pid_of("run-replica b"), Some(b));
    // And by one that does not even know what is wanted.
    home.kill_supervisor();
    fs::write(home.layout.node().join("processes.json"), "{").unwrap();
    home.up();
    home.until("it runs", |home| serin_node::supervisor_pid(&home.layout).unwrap().is_some());
    sleep(Duration::from_millis(500));
    assert_eq!(home.pid_of("run-replica b"), Some(b));
    home.fail_control(false);
    home.wait(|status| ready(status, "a") && ready(status, "b") && status.slots["b"].pid == Some(b));
}

#[test]
fn what_control_cannot_describe_now_goes_on_as_it_is() {
    let mut home = Home::new();
    home.set([model("a", &[]), model("b", &[])]);
    home.up();
    let before = home.wait(|status| ready(status, "a") && ready(status, "b"));
    home.keep(["a", "never-seen"], [model("c", &[])]);
    let after = home.wait(|status| ready(status, "c") && !status.slots.contains_key("b"));
    assert_eq!(after.slots["a"].pid, before.slots["a"].pid);
    assert_eq!(after.slots.keys().collect::<Vec<_>>(), ["a", "c"]);
    // Also when it ends, and over a restart.
    home.kill_supervisor();
    kill(after.slots["a"].pid.unwrap());
    home.up();
    home.wait(|status| ready(status, "a") && ready(status, "c"));
    home.keep([], [model("c", &[])]);
    home.wait(|status| !status.slots.contains_key("a"));
}

#[test]
fn a_changed_spec_restarts_its_slot_alone_and_the_port_stays() {
    let mut home = Home::new();
    home.set([home.command("c", &[]), model("a", &[])]);
    home.up();
    let before = home.wait(|status| ready(status, "c") && ready(status, "a"));
    let Address::Tcp(address) = &before.slots["c"].address else { panic!("{before:?}") };
    assert_eq!(home.seen(), format!("{} /models/m ", address.strip_prefix("127.0.0.1:").unwrap()));

    let mut changed = home.command("c", &[]);
    changed.env.insert("TOKEN".to_owned(), "new".to_owned());
    let mut slower = model("a", &[]);
    slower.stop_timeout_ms += 1;
    home.set([changed.clone(), slower.clone()]);
    let generation = home.generation;
    let after = home.wait(|status| {
        status.generation == generation && ready(status, "c") && status.slots["c"].pid != before.slots["c"].pid
    });
    assert_eq!(after.slots["c"].address, before.slots["c"].address);
    assert!(home.seen().ends_with(" /models/m new"), "{}", home.seen());
    assert_eq!(after.slots["a"].pid, before.slots["a"].pid, "a time-out applies without a restart");

    // A new port only when a foreign program has the old one.
    kill(serin_node::supervisor_pid(&home.layout).unwrap().unwrap());
    kill(after.slots["c"].pid.unwrap());
    let mut foreign = None;
    home.until("the port is taken", |_| {
        foreign = TcpListener::bind(address).ok();
        foreign.is_some()
    });
    home.up();
    let moved = home.wait(|status| ready(status, "c"));
    assert_ne!(moved.slots["c"].address, before.slots["c"].address);

    home.set([slower]);
    let status = home.wait(|status| !status.slots.contains_key("c"));
    assert_eq!((status.slots["a"].pid, home.pid_of("serve")), (before.slots["a"].pid, None));
}

#[test]
fn what_fails_says_why_and_waits_longer_each_time() {
    let mut home = Home::new();
    let mut failing = model("failing", &[("exit", "7")]);
    failing.env.insert("TOKEN".to_owned(), "hunter2hunter2".to_owned());
    let mut missing = home.command("missing", &[]);
    missing.process = command(vec!["/no/such/program".to_owned()]);
    let mut odd = model("odd", &[]);
    odd.slot = "../odd".to_owned();
    let mut never = model("never", &[]);
    if let Process::ModelServer { warmup_timeout_ms, .. } = &mut never.process {
        *warmup_timeout_ms = 60_000;
    }
    never.ready_timeout_ms = 300;
    home.set([failing, missing, odd, never]);
    home.up();
    let since = Instant::now();
    let reason = |slot: &SlotStatus| slot.reason.clone().unwrap_or_default();
    let status = home.wait(|status| {
        status.slots.len() == 4
            && ["failing", "missing", "never"]
                .iter()
                .all(|slot| !reason(&status.slots[*slot]).is_empty() && status.slots[*slot].restarts > 1)
    });
    let failing = reason(&status.slots["failing"]);
    assert!(failing.starts_with("exited with status 7 after 0."), "{failing}");
    assert!(failing.contains("token <hidden>\nbytes \u{fffd}\u{fffd}") && !failing.contains("hunter2"), "{failing}");
    let missing = reason(&status.slots["missing"]);
    assert!(missing.contains("status 78") && missing.contains("cannot execute \"/no/such/program\""), "{missing}");
    let never = reason(&status.slots["never"]);
    assert!(never.starts_with("not ready in time"), "{never}");
    assert_eq!(status.slots["../odd"].state, SlotState::BackOff);
    assert!(reason(&status.slots["../odd"]).contains("want 1 to 80"), "{status:?}");
    assert!(!home.layout.node().join("odd").exists());

    // Restarts after 0.2, 0.6, 1.4, 3.0 s and so on, not counting the time that they take.
    home.until("three seconds", |_| since.elapsed() > Duration::from_secs(3));
    let restarts = home.wait(|_| true).slots["failing"].restarts;
    let most = (1..30).take_while(|n| since.elapsed() >= Duration::from_millis(200) * ((1 << n) - 1)).count() as u64;
    assert!((2..=most).contains(&restarts), "{restarts} restarts in {:?}, at most {most}", since.elapsed());
}

#[test]
fn a_command_ends_with_all_its_children_and_in_time() {
    let mut home = Home::new();
    let actor = actor();
    let script = format!("trap '' TERM; exec {} serve --fork --home {}", actor.display(), home.layout.home().display());
    let mut stubborn = home.command("stubborn", &[]);
    stubborn.process = command(vec!["sh".to_owned(), "-c".to_owned(), script]);
    stubborn.stop_timeout_ms = 500;
    home.set([stubborn]);
    home.up();
    home.wait(|status| ready(status, "stubborn"));
    home.until("its children run", |home| home.pids_of("sleep 1000").len() == 2);
    // Its main process dies: the children go before the next start.
    let (main, children) = (home.pid_of("serve").unwrap(), home.pids_of("sleep 1000"));
    kill(main);
    home.wait(|status| ready(status, "stubborn") && status.slots["stubborn"].pid != Some(main));
    assert!(home.pids_of("sleep 1000").iter().all(|child| !children.contains(child)));
    // It ignores the signal, and is killed.
    let since = Instant::now();
    home.set([]);
    home.until("it is gone", |home| home.pid_of("serve").is_none() && home.pids_of("sleep 1000").is_empty());
    assert!((400..5_000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
}

#[test]
fn a_command_that_stops_answering_is_not_ready_and_then_restarted() {
    let mut home = Home::new();
    let mut c = home.command("c", &[]);
    c.ready_timeout_ms = 1_500;
    home.set([c]);
    home.up();
    let before = home.wait(|status| ready(status, "c"));
    fs::write(home.test("code"), "503").unwrap();
    let status = home.wait(|status| status.slots["c"].state == SlotState::Starting);
    assert_eq!(status.slots["c"].pid, before.slots["c"].pid);
    assert!(
        status.slots["c"].reason.as_ref().unwrap().contains("503 Service Unavailable, 3 times in a row"),
        "{status:?}"
    );
    home.wait(|status| status.slots["c"].pid.is_some_and(|pid| Some(pid) != before.slots["c"].pid));
    fs::write(home.test("code"), "200").unwrap();
    let status = home.wait(|status| ready(status, "c"));
    assert!(status.slots["c"].reason.is_none() && status.slots["c"].restarts >= 1, "{status:?}");
}

#[test]
fn of_supervisors_that_race_one_wins_and_the_others_name_it() {
    let mut home = Home::new();
    home.set([model("a", &[])]);
    let mut racers: Vec<Child> =
        (0..6).map(|_| home.actor(&["up"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    home.wait(|status| ready(status, "a"));
    let winner = serin_node::supervisor_pid(&home.layout).unwrap().unwrap();
    let (winners, mut losers): (Vec<_>, Vec<_>) = racers.drain(..).partition(|racer| racer.id() as i32 == winner);
    assert_eq!(winners.len(), 1);
    for loser in &mut losers {
        assert!(!loser.wait().unwrap().success());
        let mut message = String::new();
        loser.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        assert!(message.contains(&format!("is in use by `serin up` with pid {winner}")), "{message}");
    }
    home.supervisor = winners.into_iter().next();
    home.assert_no_twins();
    // And of processes of one slot.
    let mut replicas: Vec<Child> =
        (0..6).map(|_| home.actor(&["run-replica", "a"]).stderr(Stdio::null()).spawn().unwrap()).collect();
    for replica in &mut replicas {
        assert_eq!(replica.wait().unwrap().code(), Some(75));
    }
}

#[test]
fn down_ends_what_a_killed_supervisor_left() {
    let mut home = Home::new();
    home.set([model("a", &[]), home.command("c", &["--fork"])]);
    home.up();
    home.wait(|status| ready(status, "a") && ready(status, "c"));
    home.wait_up();
    home.kill_supervisor();
    assert!(Up::read(&home.layout).unwrap().is_some());
    let report = home.down();
    assert!(report.starts_with("None [(\"a\", "), "{report}");
    assert_eq!(report.matches("(\"").count(), 4, "{report}");
    assert_eq!((home.processes(), Up::read(&home.layout).unwrap()), (vec![], None));
}

#[test]
fn the_children_of_a_command_that_died_while_nobody_looked_are_ended() {
    for by_down in [true, false] {
        let mut home = Home::new();
        home.set([model("a", &[]), home.command("c", &["--fork"])]);
        home.up();
        home.wait(|status| ready(status, "a") && ready(status, "c"));
        home.wait_up();
        home.kill_supervisor();
        kill(home.pid_of("serve").unwrap());
        home.until("the command is dead", |home| home.pid_of("serve").is_none());
        assert_eq!(home.pids_of("sleep 1000").len(), 2, "its children live on");
        if !by_down {
            // A supervisor that does not want the slot any more.
            home.set([model("a", &[])]);
            home.up();
            home.wait(|status| ready(status, "a") && !status.slots.contains_key("c"));
            home.until("its folder is gone", |home| !home.layout.slot("c").exists());
            assert_eq!(home.pids_of("sleep 1000"), [0; 0]);
        }
        home.down();
        assert_eq!(home.processes(), []);
    }
}

#[test]
fn a_port_of_another_program_is_refused_by_name() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let rows = [
        (vec!["--gateway", &port], format!("gateway port {port} on 127.0.0.1 cannot be bound")),
        (vec!["--api", &port], format!("api port {port} on 127.0.0.1 cannot be bound")),
        (vec!["--gateway", "7999", "--admin", "7999"], "gateway and admin both have port 7999".to_owned()),
    ];
    for (options, message) in rows {
        let out = home.actor(&[&["up"], options.as_slice()].concat()).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && error.contains(&message), "{error}");
    }
    assert_eq!(home.processes(), []);
}

#[test]
fn a_home_with_a_long_path_works() {
    let mut home = Home::at(&format!("{}/home", ["long".repeat(10).as_str(); 5].join("/")));
    assert!(home.layout.home().as_os_str().len() > 200);
    home.set([model(&"a".repeat(80), &[])]);
    home.up();
    home.wait(|status| ready(status, &"a".repeat(80)));
    home.down();
    assert_eq!(home.processes(), []);
    fs::remove_dir_all(home.layout.run()).unwrap();
}

#[test]
fn a_broken_disk_is_named_and_does_not_stop_the_rest() {
    let mut home = Home::new();
    home.set([model("a", &[]), model("b", &[])]);
    // A folder in the place of a file: writing fails, also for root.
    fs::create_dir_all(home.layout.slot("a").join("spec.json")).unwrap();
    fs::create_dir_all(home.layout.node().join("processes.json")).unwrap();
    home.up();
    let status = home.wait(|status| {
        let failing = status.slots.get("a").filter(|a| a.state == SlotState::BackOff);
        ready(status, "b") && failing.is_some_and(|a| a.restarts > 1)
    });
    let reason = status.slots["a"].reason.clone().unwrap();
    assert!(reason.starts_with("cannot be started: cannot write ") && reason.contains("/a/spec.json: "), "{reason}");
    fs::remove_dir(home.layout.slot("a").join("spec.json")).unwrap();
    home.wait(|status| ready(status, "a"));
}

/// Numbers below a bound, the same in every run (xorshift64, Marsaglia 2003).
fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// A home with processes in it. Dropping it ends them.
struct Home {
    _temp: tempfile::TempDir,
    layout: Layout,
    supervisor: Option<Child>,
    generation: u64,
}

impl Home {
    fn new() -> Home {
        Home::at("h")
    }

    fn at(path: &str) -> Home {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path().join(path);
        fs::create_dir_all(home.join("test")).unwrap();
        let layout = Layout::new(&home, rustix::process::getuid().as_raw());
        Home { _temp: temp, layout, supervisor: None, generation: 0 }
    }

    fn test(&self, file: &str) -> PathBuf {
        self.layout.home().join("test").join(file)
    }

    fn actor(&self, args: &[&str]) -> Command {
        let mut command = Command::new(actor());
        command.args(args).arg("--home").arg(self.layout.home());
        command
    }

    fn up(&mut self) {
        let log = fs::File::options().append(true).create(true).open(self.test("up.log")).unwrap();
        let child = self.actor(&["up"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.supervisor = Some(child);
    }

    fn kill_supervisor(&mut self) {
        let mut child = self.supervisor.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn down(&mut self) -> String {
        let out = self.actor(&["down"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        if let Some(mut child) = self.supervisor.take() {
            assert!(child.wait().unwrap().success(), "{}", fs::read_to_string(self.test("up.log")).unwrap());
        }
        String::from_utf8(out.stdout).unwrap()
    }

    fn set<const N: usize>(&mut self, slots: [SlotSpec; N]) {
        self.keep([], slots);
    }

    fn keep<const K: usize, const N: usize>(&mut self, keep: [&str; K], slots: [SlotSpec; N]) {
        self.generation += 1;
        let slots = slots.into_iter().map(|spec| (spec.slot.clone(), spec)).collect();
        let keep = keep.into_iter().map(str::to_owned).collect();
        let set = ProcessSet { generation: self.generation, slots, keep };
        fs::write(self.test("set.next"), serde_json::to_vec(&set).unwrap()).unwrap();
        fs::rename(self.test("set.next"), self.test("set.json")).unwrap();
    }

    fn command(&self, slot: &str, options: &[&str]) -> SlotSpec {
        let args = ["serve", "--home", self.layout.home().to_str().unwrap()];
        let args = args.iter().chain(options).map(|arg| (*arg).to_owned());
        let mut spec = model(slot, &[]);
        spec.process = command([actor().to_str().unwrap().to_owned()].into_iter().chain(args).collect());
        spec
    }

    fn fail_control(&self, fails: bool) {
        let file = self.test("control-fails");
        if fails { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    fn seen(&self) -> String {
        fs::read_to_string(self.test("seen")).unwrap()
    }

    fn answers(&self, address: &str) -> bool {
        use std::io::Write as _;
        let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
        let mut answer = [0; 12];
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && &answer == b"HTTP/1.1 200"
    }

    fn wait_up(&self) -> Up {
        self.until("up.json is there", |home| Up::read(&home.layout).unwrap().is_some());
        Up::read(&self.layout).unwrap().unwrap()
    }

    /// Waits for a status that control was told since the call, and that has what it should.
    fn wait(&self, has: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let _ = fs::remove_file(self.test("status.json"));
        let mut found = None;
        self.until("the status is as it should be", |home| {
            let Ok(text) = fs::read(home.test("status.json")) else { return false };
            found = Some(serde_json::from_slice(&text).unwrap());
            has(found.as_ref().unwrap())
        });
        found.unwrap()
    }

    fn until(&self, what: &str, mut is: impl FnMut(&Home) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while !is(self) {
            assert!(
                Instant::now() < give_up,
                "not in 30 s: {what}\nstatus: {}\nprocesses: {:?}\nup: {}",
                fs::read_to_string(self.test("status.json")).unwrap_or_default(),
                self.processes(),
                fs::read_to_string(self.test("up.log")).unwrap_or_default(),
            );
            sleep(Duration::from_millis(5));
        }
    }

    /// Everything of this home that lives, as `/proc` has it.
    fn processes(&self) -> Vec<(i32, String)> {
        let home = self.layout.home().to_string_lossy().into_owned();
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let text = |file: &str| {
                String::from_utf8_lossy(&fs::read(entry.path().join(file)).ok()?).replace('\0', " ").into()
            };
            let (command, env): (Option<String>, Option<String>) = (text("cmdline"), text("environ"));
            let command = command?;
            let is_ours = command.contains(&home) || env?.contains(&format!("SERIN_SLOT_LOCK={home}"));
            (is_ours && !command.is_empty()).then_some((pid, command))
        });
        processes.collect()
    }

    fn pids_of(&self, role: &str) -> Vec<i32> {
        let is_role = |command: &str| command.starts_with(role) || command.contains(&format!(" {role} "));
        self.processes().into_iter().filter(|(_, command)| is_role(command)).map(|(pid, _)| pid).collect()
    }

    fn pid_of(&self, role: &str) -> Option<i32> {
        self.pids_of(role).first().copied()
    }

    /// No slot has two processes that serve. One that lost the race for the slot's lock is about to exit and has no socket.
    fn assert_no_twins(&self) {
        let mut serving = BTreeMap::new();
        for (pid, command) in self.processes() {
            let words: Vec<&str> = command.split(' ').collect();
            let role = match words.get(1).copied() {
                Some("run-replica") => words[2],
                Some(role @ ("control" | "gateway" | "serve")) => role,
                _ => continue,
            };
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut files = files.filter_map(|file| fs::read_link(file.path()).ok());
            if !files.any(|file| file.to_string_lossy().starts_with("socket:")) {
                continue;
            }
            if let Some(other) = serving.insert(role.to_owned(), pid) {
                // The first may have died while the second was looked at.
                let lives =
                    |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
                assert!(!lives(other) || !lives(pid), "{role} runs as {other} and {pid}");
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (pid, _) in self.processes() {
            kill(pid);
        }
    }
}

fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

fn ready(status: &NodeStatus, slot: &str) -> bool {
    status.slots.get(slot).is_some_and(|slot| slot.state == SlotState::Ready)
}

fn model(slot: &str, parameters: &[(&str, &str)]) -> SlotSpec {
    let process = Process::ModelServer {
        model: "m".to_owned(),
        version: "v1".to_owned(),
        artifact: "/models/m".to_owned(),
        digest: None,
        parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        warmup_requests: 0,
        warmup_max_latency_ms: None,
        warmup_timeout_ms: 20,
    };
    SlotSpec { slot: slot.to_owned(), process, env: BTreeMap::new(), ready_timeout_ms: 10_000, stop_timeout_ms: 5_000 }
}

fn command(args: Vec<String>) -> Process {
    Process::Command { args, artifact: Some("/models/m".to_owned()), digest: None, ready_path: "/ready".to_owned() }
}

/// The example that plays `serin`; `cargo test` builds it.
fn actor() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let actor = test.parent().and_then(Path::parent).unwrap().join("examples/serin-node-actor");
    assert!(actor.exists(), "{} is missing; run `cargo build --release -p serin-node --examples`", actor.display());
    actor
}
